import { Alert } from '@patternfly/react-core';
import { useMemo } from 'react';
import { Link, useParams } from 'react-router';
import { groupActions, maintenanceActions, monitorActions, nodeActions } from '../actions';
import { useConsoles, useStatus, useView } from '../context';
import { useText } from '../i18n/context';
import { chosen } from '../model/events';
import { moment } from '../model/format';
import { Actions } from '../parts/Dialogs';
import { EventTable } from '../parts/EventTable';
import { Facts } from '../parts/Facts';
import { MaintenanceNote } from '../parts/MaintenanceNote';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { Part, View } from '../parts/View';
import { WhatIfNode } from '../parts/WhatIfLinks';

export default function Node() {
  const { t } = useText();
  const { name = '' } = useParams();
  const s = useStatus();
  const there = useConsoles();
  const { events } = useView();
  const own = useMemo(() => chosen(events, { text: '', level: '', node: name, group: '' }), [events, name]);
  const n = (s.nodes ?? []).find((x) => x.name === name);
  if (!n) return <View title={name}>{t('common.notfound')}</View>;
  const maintenance = (s.maintenance ?? []).find((m) => m.node === name);
  const watched = (s.monitors ?? []).flatMap((m) =>
    (m.nodes ?? []).filter((x) => x.node === name).map((x) => ({ ...x, monitor: m })),
  );
  return (
    <View
      title={n.name}
      state={<State of="node" value={n.state} />}
      actions={
        <Actions of={n.name} list={[...maintenanceActions(t, { node: name }, maintenance), ...nodeActions(t, n)]} />
      }
    >
      {n.quarantine && (
        <Alert isInline variant="warning" title={t('concern.quarantine', { name })}>
          {n.quarantine.why}
        </Alert>
      )}
      {maintenance && <MaintenanceNote {...maintenance} />}
      <Part title={t('node.addresses')}>
        <Facts
          list={[
            ...(n.addresses ?? []).map(
              (a, i) =>
                [
                  t('overview.network', { n: i + 1 }),
                  <Address key={a.address} address={a.address} up={n.self ? null : a.up} />,
                ] as const,
            ),
            [t('common.since'), moment(n.since)],
            [t('common.why'), n.why],
            [
              t('common.kind'),
              [
                n.name === s.leader ? t('overview.leader') : '',
                n.witness ? t('overview.witness') : '',
                n.voter ? t('node.voter') : '',
              ]
                .filter((x) => x !== '')
                .join(' · '),
            ],
          ]}
        />
      </Part>
      {!n.witness && (
        <Part title={t('node.groups')}>
          <Table
            label={t('node.groups')}
            rows={(s.groups ?? []).filter((g) => g.owner === name)}
            keyOf={(g) => g.name}
            columns={[
              { label: t('common.name'), cell: (g) => <Link to={`/groups/${g.name}`}>{g.name}</Link> },
              { label: t('common.state'), cell: (g) => <State of="phase" value={g.phase} />, narrow: true },
              { label: t('common.actions'), cell: (g) => <Actions small of={g.name} list={groupActions(t, g, s)} /> },
            ]}
          />
        </Part>
      )}
      {watched.length > 0 && (
        <Part title={t('node.monitors')}>
          <Table
            label={t('node.monitors')}
            rows={watched}
            keyOf={(w) => w.monitor.name}
            columns={[
              { label: t('common.name'), cell: (w) => w.monitor.name },
              { label: t('common.state'), cell: (w) => <State of="verdict" value={w.verdict} />, narrow: true },
              { label: t('monitor.text'), cell: (w) => w.text },
              {
                label: t('common.actions'),
                cell: (w) => (
                  <Actions small of={w.monitor.name} list={monitorActions(t, w.monitor, s.node, name, there)} />
                ),
              },
            ]}
          />
        </Part>
      )}
      {(n.fence ?? []).length > 0 && (
        <Part title={t('node.fence')}>
          <ul className="lines">
            {(n.fence ?? []).map((f) => (
              <li key={`${f.level}/${f.device}`}>
                {f.level}. {f.device} {f.plug} ({f.by}):{' '}
                {f.why ?? (f.verified ? t('node.fence.verified', { time: moment(f.verified) }) : t('node.fence.never'))}
              </li>
            ))}
          </ul>
        </Part>
      )}
      <WhatIfNode node={n} />
      <Part title={t('nav.events')}>
        <EventTable events={own} size={10} />
      </Part>
    </View>
  );
}

// Address says of another node whether it is heard there.
function Address({ address, up }: { address: string; up: boolean | null }) {
  const { t } = useText();
  return (
    <>
      {address}{' '}
      {up !== null && <span className={up ? 'quiet' : 'alarm'}>{t(up ? 'node.address.up' : 'node.address.down')}</span>}
    </>
  );
}
