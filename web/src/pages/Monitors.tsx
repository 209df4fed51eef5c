import { useState } from 'react';
import { useSearchParams } from 'react-router';
import { monitorActions } from '../actions';
import { useConsoles, useStatus } from '../context';
import { useText } from '../i18n/context';
import { Actions } from '../parts/Dialogs';
import { ChoiceFilter, Filters, TextFilter } from '../parts/Filter';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { View } from '../parts/View';

const verdicts = ['bad', 'suspect', 'good', 'suspended', 'unknown'] as const;

export default function Monitors() {
  const { t } = useText();
  const s = useStatus();
  const there = useConsoles();
  const [search] = useSearchParams();
  const [name, setName] = useState(search.get('q') ?? '');
  const [verdict, setVerdict] = useState('');
  const rows = (s.monitors ?? []).filter(
    (m) => m.name.includes(name.trim()) && (verdict === '' || m.verdict === verdict),
  );
  return (
    <View title={t('nav.monitors')}>
      <Filters>
        <TextFilter label={t('common.name')} value={name} change={setName} />
        <ChoiceFilter
          label={t('common.state')}
          value={verdict}
          change={setVerdict}
          options={verdicts.map((v) => [v, t(`verdict.${v}`)])}
        />
      </Filters>
      <Table
        label={t('nav.monitors')}
        rows={rows}
        keyOf={(m) => m.name}
        columns={[
          {
            label: t('common.name'),
            cell: (m) => (
              <>
                {m.name} <span className="quiet">{m.comment}</span>
              </>
            ),
          },
          { label: t('common.kind'), cell: (m) => m.kind, narrow: true },
          { label: t('common.state'), cell: (m) => <State of="verdict" value={m.verdict} />, narrow: true },
          {
            label: t('monitor.text'),
            cell: (m) => (
              <ul className="lines">
                {(m.nodes ?? [])
                  .filter((n) => n.verdict !== 'unknown' || n.text)
                  .map((n) => (
                    <li key={n.node}>
                      {n.node}: {t(`verdict.${n.verdict as (typeof verdicts)[number]}`)}{' '}
                      <span className="quiet">{n.text}</span>
                    </li>
                  ))}
              </ul>
            ),
          },
          {
            label: t('common.actions'),
            cell: (m) => <Actions small of={m.name} list={monitorActions(t, m, s.node, '', there)} />,
          },
        ]}
      />
    </View>
  );
}
