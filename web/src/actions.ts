// What can be done with the things of the cluster, as actions of the page.
import { api, answer } from './api/client';
import type { Group, Maintenance, Mirror, Monitor, Node, Status } from './api/types';
import type { Translate } from './i18n/text';
import type { Action, Deed, Given } from './parts/Dialogs';

const hour = 3_600_000_000_000; // in the nanoseconds of the API

type GroupVerb = 'start' | 'stop' | 'move' | 'failover' | 'restart' | 'clear' | 'release';

function onGroup(group: string, verb: GroupVerb, to = '') {
  const body = { id: crypto.randomUUID(), ...(to === '' ? {} : { to }) };
  return answer(api.POST('/v1/groups/{group}/{verb}', { params: { path: { group, verb } }, body }));
}

// moveGroup asks where to; the nodes that are up come first.
function place(t: Translate, g: Group, s: Status): Deed['choose'] {
  const up = new Set((s.nodes ?? []).filter((n) => n.state === 'up').map((n) => n.name));
  const others = (g.nodes ?? []).filter((n) => n !== g.owner && up.has(n));
  return { label: t('group.moveTo'), options: [['', t('group.byPolicy')], ...others.map((n) => [n, n] as const)] };
}

// groupActions are what can be done with a group where it stands.
export function groupActions(t: Translate, g: Group, s: Status): Action[] {
  const name = g.name;
  const out: Action[] = [];
  const runs = g.phase === 'online' || g.phase === 'starting' || g.phase === 'failed';
  if (g.phase === 'offline' || g.phase === 'failed') {
    const choose = place(t, g, s);
    out.push({
      label: t('group.start'),
      need: 'operate',
      run: ({ choice }) => onGroup(name, 'start', choice),
      ...(choose ? { choose: { ...choose, label: t('group.startOn') } } : {}),
    });
  }
  if (runs) {
    const choose = place(t, g, s);
    out.push({
      label: t('group.move'),
      need: 'operate',
      sure: t('group.move.sure', { name, from: g.owner ?? '' }),
      run: ({ choice }) => onGroup(name, 'move', choice),
      ...(choose ? { choose } : {}),
    });
    out.push({
      label: t('group.restart'),
      need: 'operate',
      sure: t('group.restart.sure', { name }),
      run: () => onGroup(name, 'restart'),
    });
    out.push({
      label: t('group.stop'),
      need: 'operate',
      danger: true,
      sure: t('group.stop.sure', { name }),
      run: () => onGroup(name, 'stop'),
    });
  }
  if (g.failovers > 0 || (g.counters ?? []).length > 0) {
    out.push({ label: t('group.clear'), need: 'operate', run: () => onGroup(name, 'clear') });
  }
  if (g.held) out.push({ label: t('group.release'), need: 'operate', run: () => onGroup(name, 'release') });
  return out;
}

function maintain(verb: 'on' | 'off', what: { node: string } | { group: string }, given?: Given) {
  const body = {
    id: crypto.randomUUID(),
    ...what,
    ...(given ? { reason: given.reason, for: given.hours * hour, drain: given.check } : {}),
  };
  return answer(api.POST('/v1/maintenance/{verb}', { params: { path: { verb } }, body }));
}

// maintenanceActions begin or end the maintenance of a node or a group.
export function maintenanceActions(
  t: Translate,
  what: { node: string } | { group: string },
  now: Maintenance | undefined,
): Action[] {
  const name = 'node' in what ? what.node : what.group;
  if (now) return [{ label: t('maintenance.off'), need: 'operate', run: () => maintain('off', what) }];
  return [
    {
      label: t('maintenance.on'),
      need: 'operate',
      sure: t('maintenance.sure', { name }),
      reason: 'needed',
      hours: true,
      ...('node' in what ? { check: t('maintenance.drain') } : {}),
      run: (given) => maintain('on', what, given),
    },
  ];
}

// nodeActions are what can be done with a node.
export function nodeActions(t: Translate, n: Node): Action[] {
  const node = n.name;
  const on = (verb: string) => (given: Given) =>
    answer(
      api.POST('/v1/nodes/{node}/{verb}', {
        params: { path: { node, verb } },
        body: { id: crypto.randomUUID(), ...(given.reason === '' ? {} : { reason: given.reason }) },
      }),
    );
  const out: Action[] = [];
  if (n.quarantine) out.push({ label: t('node.release'), need: 'operate', run: on('release') });
  if (n.state === 'up' && !n.witness) {
    out.push({
      label: t('node.leave'),
      need: 'operate',
      danger: true,
      sure: t('node.leave.sure', { name: node }),
      run: on('leave'),
    });
  }
  if (n.state === 'left') out.push({ label: t('node.return'), need: 'operate', run: on('return') });
  if (!n.self && (n.fence ?? []).length > 0) {
    out.push({
      label: t('node.forceoff'),
      need: 'fence',
      danger: true,
      sure: t('node.forceoff.sure', { name: node }),
      reason: 'needed',
      type: { label: t('common.name'), text: node },
      run: (given) =>
        answer(
          api.POST('/v1/nodes/{node}/fence', {
            params: { path: { node } },
            body: { id: crypto.randomUUID(), reason: given.reason },
          }),
        ),
    });
  }
  return out;
}

// monitorActions are what can be done with a monitor, on all nodes or on one. A
// failure is rehearsed at the node that watches: of another one, there says how to
// get to its console.
export function monitorActions(
  t: Translate,
  m: Monitor,
  self: string,
  node = '',
  there?: (node: string) => (() => void) | undefined,
): Action[] {
  const on = (verb: string, where: string) => () =>
    answer(
      api.POST('/v1/monitors/{monitor}/{verb}', {
        params: { path: { monitor: m.name, verb } },
        body: where === '' ? {} : { node: where },
      }),
    );
  const watching = (m.nodes ?? []).filter((n) => node === '' || n.node === node);
  const out: Action[] = [];
  if (watching.some((n) => n.verdict !== 'suspended'))
    out.push({ label: t('monitor.suspend'), need: 'operate', run: on('suspend', node) });
  if (watching.some((n) => n.verdict === 'suspended'))
    out.push({ label: t('monitor.resume'), need: 'operate', run: on('resume', node) });
  if (watching.some((n) => n.node === self)) {
    out.push({
      label: t('monitor.rehearse'),
      need: 'operate',
      danger: true,
      sure: t('monitor.rehearse.sure', { name: m.name, node: self }),
      run: on('rehearse', self),
    });
  } else {
    const first = watching[0]?.node;
    const go = first === undefined ? undefined : there?.(first);
    if (first !== undefined && go)
      out.push({ label: t('monitor.rehearse.there', { node: first }), need: 'operate', go });
  }
  return out;
}

// mirrorActions are what can be done with a mirror disk in the state that it is in.
export function mirrorActions(t: Translate, m: Mirror, s: Status): Action[] {
  const name = m.name;
  const on = (verb: string) => (given: Given) =>
    answer(
      api.POST('/v1/mirrors/{mirror}/{verb}', {
        params: { path: { mirror: name, verb } },
        body: {
          id: crypto.randomUUID(),
          ...(given.choice === '' ? {} : { node: given.choice }),
          ...(given.reason === '' ? {} : { reason: given.reason }),
          ...(given.typed === '' ? {} : { confirm: given.typed }),
          ...(given.check ? { [verb === 'resolve' ? 'no_snapshot' : 'thorough']: true } : {}),
        },
      }),
    );
  const copies = m.copies ?? [];
  const nodes = copies.map((c) => [c.node, c.node] as const);
  const confirm = { label: t('mirror.confirm', { name: s.cluster }), text: s.cluster };
  const out: Action[] = [];
  if (m.paused) out.push({ label: t('mirror.resume'), need: 'operate', run: on('resume') });
  else {
    out.push({
      label: t('mirror.copy'),
      need: 'operate',
      sure: t('mirror.copy.sure', { name }),
      check: t('mirror.copy.full'),
      run: on('copy'),
    });
    out.push({
      label: t('mirror.verify'),
      need: 'operate',
      sure: t('mirror.verify.sure', { name }),
      check: t('mirror.verify.repair'),
      run: on('verify'),
    });
    out.push({ label: t('mirror.grow'), need: 'operate', sure: t('mirror.grow.sure', { name }), run: on('grow') });
    out.push({
      label: t('mirror.break'),
      need: 'operate',
      sure: t('mirror.break.sure', { name }),
      reason: 'needed',
      run: on('break'),
    });
  }
  if (m.forced) out.push({ label: t('mirror.acknowledge'), need: 'operate', run: on('acknowledge') });
  if (copies.some((c) => c.state === 'split')) {
    out.push({
      label: t('mirror.resolve'),
      need: 'operate',
      danger: true,
      sure: t('mirror.resolve.sure', { name }),
      choose: { label: t('mirror.victim'), options: nodes },
      reason: 'needed',
      check: t('mirror.resolve.nosnapshot'),
      type: confirm,
      run: on('resolve'),
    });
  } else {
    out.push({
      label: t('mirror.invalidate'),
      need: 'operate',
      sure: t('mirror.invalidate.sure', { name }),
      choose: { label: t('mirror.which'), options: nodes },
      reason: 'wanted',
      run: on('invalidate'),
    });
  }
  if (!copies.some((c) => c.role === 'active')) {
    out.push({
      label: t('mirror.force'),
      need: 'operate',
      danger: true,
      sure: t('mirror.force.sure', { name }),
      choose: { label: t('mirror.which'), options: nodes },
      reason: 'needed',
      type: confirm,
      run: on('force'),
    });
  }
  return out;
}
