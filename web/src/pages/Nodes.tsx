import { Link } from 'react-router';
import { maintenanceActions } from '../actions';
import { useStatus } from '../context';
import { useText } from '../i18n/context';
import { moment } from '../model/format';
import { Actions } from '../parts/Dialogs';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { View } from '../parts/View';

export default function Nodes() {
  const { t } = useText();
  const s = useStatus();
  return (
    <View title={t('nav.nodes')}>
      <Table
        label={t('nav.nodes')}
        rows={s.nodes ?? []}
        keyOf={(n) => n.name}
        size={32}
        columns={[
          {
            label: t('common.name'),
            cell: (n) => (
              <>
                <Link to={`/nodes/${n.name}`}>{n.name}</Link>{' '}
                <span className="quiet">
                  {[n.name === s.leader ? t('overview.leader') : '', n.witness ? t('overview.witness') : '']
                    .filter((x) => x !== '')
                    .join(' · ')}
                </span>
              </>
            ),
          },
          { label: t('common.state'), cell: (n) => <State of="node" value={n.state} />, narrow: true },
          { label: t('node.addresses'), cell: (n) => <Addresses list={n.addresses} self={n.self} /> },
          { label: t('common.since'), cell: (n) => <time dateTime={n.since}>{moment(n.since)}</time>, narrow: true },
          { label: t('common.why'), cell: (n) => n.why },
          {
            label: t('common.actions'),
            cell: (n) => (
              <Actions
                small
                of={n.name}
                list={maintenanceActions(
                  t,
                  { node: n.name },
                  (s.maintenance ?? []).find((m) => m.node === n.name),
                )}
              />
            ),
          },
        ]}
      />
    </View>
  );
}

function Addresses({ list, self }: { list: readonly { address: string; up: boolean }[] | null; self: boolean }) {
  const { t } = useText();
  return (
    <ul className="lines">
      {(list ?? []).map((a) => (
        <li key={a.address}>
          {a.address}{' '}
          {!self && (
            <span className={a.up ? 'quiet' : 'alarm'}>{t(a.up ? 'node.address.up' : 'node.address.down')}</span>
          )}
        </li>
      ))}
    </ul>
  );
}
