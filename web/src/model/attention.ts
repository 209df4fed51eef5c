// What an operator should look at first, the worst first.
import type { Status } from '../api/types';
import type { Key } from '../i18n/en';

export interface Concern {
  level: 'danger' | 'warning';
  key: Key;
  name: string; // of what it is about
  why: string;
  to: string; // the view that shows it
}

export function attention(s: Status): Concern[] {
  const danger: Concern[] = [];
  const warning: Concern[] = [];
  const is = (list: Concern[], level: Concern['level']) => (key: Key, name: string, why: string, to: string) =>
    list.push({ level, key, name, why, to });
  const bad = is(danger, 'danger');
  const odd = is(warning, 'warning');
  if (!s.quorum) bad('concern.quorum', s.cluster, s.why, '/');
  for (const n of s.nodes ?? []) {
    if (n.state === 'down') bad('concern.down', n.name, n.why ?? '', `/nodes/${n.name}`);
    if (n.quarantine) odd('concern.quarantine', n.name, n.quarantine.why, `/nodes/${n.name}`);
    for (const f of n.fence ?? []) if (f.why) odd('concern.fence', n.name, f.why, `/nodes/${n.name}`);
  }
  for (const n of s.networks ?? []) {
    const lost = (n.directions ?? []).filter((d) => d.state === 'lost');
    if (lost.length > 0)
      odd('concern.network', String(n.number), lost.map((d) => `${d.from} → ${d.to}`).join(', '), '/nodes');
  }
  for (const g of s.groups ?? []) {
    if (g.phase === 'failed') bad('concern.failed', g.name, g.why ?? '', `/groups/${g.name}`);
    if (g.held) odd('concern.held', g.name, g.held.why, `/groups/${g.name}`);
  }
  for (const m of s.mirrors ?? []) {
    const split = m.copies?.find((c) => c.state === 'split');
    const wrong = m.copies?.find((c) => c.state === 'failed' || c.state === 'outdated');
    if (split) bad('concern.split', m.name, split.text ?? '', '/mirrors');
    else if (m.forced) bad('concern.forced', m.name, m.forced.why, '/mirrors');
    else if (m.paused) odd('concern.paused', m.name, m.paused.why, '/mirrors');
    else if (wrong) odd('concern.copy', m.name, wrong.text ?? wrong.state, '/mirrors');
  }
  for (const m of s.monitors ?? []) {
    if (m.verdict === 'bad')
      odd('concern.monitor', m.name, m.nodes?.find((n) => n.verdict === 'bad')?.text ?? '', `/monitors?q=${m.name}`);
  }
  for (const m of s.maintenance ?? [])
    odd('concern.maintenance', m.what, m.unprotected, m.node ? `/nodes/${m.node}` : '/groups');
  return [...danger, ...warning];
}

export type Severity = 'success' | 'warning' | 'danger';

// severity says how the cluster as a whole is.
export function severity(s: Status): Severity {
  if (!s.quorum || (s.groups ?? []).some((g) => g.phase === 'failed')) return 'danger';
  return s.survives > 0 ? 'success' : 'warning';
}
