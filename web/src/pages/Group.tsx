import { Alert } from '@patternfly/react-core';
import { useMemo } from 'react';
import { Link, useParams } from 'react-router';
import { groupActions, maintenanceActions } from '../actions';
import { useStatus, useView } from '../context';
import { useText } from '../i18n/context';
import { chosen } from '../model/events';
import { Actions } from '../parts/Dialogs';
import { EventTable } from '../parts/EventTable';
import { Facts } from '../parts/Facts';
import { MaintenanceNote } from '../parts/MaintenanceNote';
import { MirrorCard } from '../parts/MirrorCard';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { Part, View } from '../parts/View';
import { WhatIfGroup } from '../parts/WhatIfLinks';

export default function Group() {
  const { t } = useText();
  const { name = '' } = useParams();
  const s = useStatus();
  const { events } = useView();
  const own = useMemo(() => chosen(events, { text: '', level: '', node: '', group: name }), [events, name]);
  const g = (s.groups ?? []).find((x) => x.name === name);
  if (!g) return <View title={name}>{t('common.notfound')}</View>;
  const maintenance = (s.maintenance ?? []).find((m) => m.group === name);
  const actions = [...groupActions(t, g, s), ...maintenanceActions(t, { group: name }, maintenance)];
  return (
    <View title={g.name} state={<State of="phase" value={g.phase} />} actions={<Actions of={g.name} list={actions} />}>
      {g.plan && (
        <Alert
          isInline
          variant="info"
          title={t('group.plan', { action: g.plan.action, from: g.plan.from ?? '–', to: g.plan.to ?? '–' })}
        >
          {g.plan.why} {g.plan.cause && <Link to={`/report/${g.plan.cause}`}>{t('common.report')}</Link>}
        </Alert>
      )}
      {g.held && (
        <Alert isInline variant="warning" title={t('group.held')}>
          {g.held.why}
        </Alert>
      )}
      {maintenance && <MaintenanceNote {...maintenance} />}
      <Part title={g.comment ?? g.name}>
        <Facts
          list={[
            [t('common.owner'), g.owner ? <Link to={`/nodes/${g.owner}`}>{g.owner}</Link> : '–'],
            [t('common.why'), g.why],
            [t('group.nodes'), (g.nodes ?? []).join(', ')],
            [
              t('group.policy'),
              t('group.policies', { startup: g.startup, failover: g.failover, failback: g.failback }),
            ],
            [
              t('group.counters'),
              [
                t('group.failovers', { n: g.failovers }),
                ...(g.counters ?? []).map((c) => `${c.name}: ${c.count}`),
              ].join(' · '),
            ],
          ]}
        />
      </Part>
      <Part title={t('group.resources')}>
        <Table
          label={t('group.resources')}
          rows={g.resources ?? []}
          keyOf={(r) => r.name}
          columns={[
            { label: t('common.name'), cell: (r) => r.name },
            { label: t('common.kind'), cell: (r) => r.kind },
            { label: t('common.state'), cell: (r) => <State of="resource" value={r.state} />, narrow: true },
            { label: t('common.why'), cell: (r) => r.why ?? r.comment ?? '' },
          ]}
        />
      </Part>
      {(s.mirrors ?? [])
        .filter((m) => m.group === name)
        .map((m) => (
          <MirrorCard key={m.name} mirror={m} />
        ))}
      <WhatIfGroup group={g} />
      <Part title={t('nav.events')}>
        <EventTable events={own} size={10} />
      </Part>
    </View>
  );
}
