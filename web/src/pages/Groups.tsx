import { useState } from 'react';
import { Link } from 'react-router';
import { groupActions } from '../actions';
import { useStatus } from '../context';
import { useText } from '../i18n/context';
import { Actions } from '../parts/Dialogs';
import { ChoiceFilter, Filters, TextFilter } from '../parts/Filter';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { View } from '../parts/View';

const phases = ['online', 'starting', 'stopping', 'offline', 'failed'] as const;

export default function Groups() {
  const { t } = useText();
  const s = useStatus();
  const [name, setName] = useState('');
  const [phase, setPhase] = useState('');
  const [owner, setOwner] = useState('');
  const rows = (s.groups ?? []).filter(
    (g) => g.name.includes(name.trim()) && (phase === '' || g.phase === phase) && (owner === '' || g.owner === owner),
  );
  return (
    <View title={t('nav.groups')}>
      <Filters>
        <TextFilter label={t('common.name')} value={name} change={setName} />
        <ChoiceFilter
          label={t('common.state')}
          value={phase}
          change={setPhase}
          options={phases.map((p) => [p, t(`phase.${p}`)])}
        />
        <ChoiceFilter
          label={t('common.owner')}
          value={owner}
          change={setOwner}
          options={(s.nodes ?? []).map((n) => [n.name, n.name])}
        />
      </Filters>
      <Table
        label={t('nav.groups')}
        rows={rows}
        keyOf={(g) => g.name}
        columns={[
          {
            label: t('common.name'),
            cell: (g) => (
              <>
                <Link to={`/groups/${g.name}`}>{g.name}</Link> <span className="quiet">{g.comment}</span>
              </>
            ),
          },
          { label: t('common.state'), cell: (g) => <State of="phase" value={g.phase} />, narrow: true },
          { label: t('common.owner'), cell: (g) => (g.owner ? <Link to={`/nodes/${g.owner}`}>{g.owner}</Link> : '–') },
          { label: t('common.why'), cell: (g) => g.why },
          { label: t('common.actions'), cell: (g) => <Actions small of={g.name} list={groupActions(t, g, s)} /> },
        ]}
      />
    </View>
  );
}
