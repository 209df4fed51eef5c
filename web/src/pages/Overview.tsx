import { Alert, Label } from '@patternfly/react-core';
import { Link } from 'react-router';
import { useMay, useStatus, useView } from '../context';
import { groupActions } from '../actions';
import { useText } from '../i18n/context';
import { attention, severity } from '../model/attention';
import { incidents } from '../model/events';
import { moment } from '../model/format';
import { Actions } from '../parts/Dialogs';
import { Joining } from '../parts/Joining';
import { Picture } from '../parts/Picture';
import { State } from '../parts/State';
import { Table } from '../parts/Table';
import { Part, View } from '../parts/View';

const shown = 6; // concerns, and incidents

export function Overview() {
  const { t } = useText();
  const s = useStatus();
  const { events } = useView();
  const nodes = s.nodes ?? [];
  const groups = s.groups ?? [];
  const monitors = s.monitors ?? [];
  const survives = !s.quorum
    ? t('overview.noquorum')
    : s.survives === 0
      ? t('overview.survives.0')
      : s.survives === 1
        ? t('overview.survives.1')
        : t('overview.survives.n', { n: s.survives });
  const concerns = attention(s);
  const latest = incidents(events).slice(0, shown);
  return (
    <View
      title={s.cluster}
      state={
        <span className="quiet">
          {t('overview.summary', {
            up: nodes.filter((n) => n.state === 'up').length,
            nodes: nodes.length,
            online: groups.filter((g) => g.phase === 'online').length,
            groups: groups.length,
            good: monitors.filter((m) => m.verdict === 'good').length,
            monitors: monitors.length,
          })}
        </span>
      }
    >
      <Alert isInline variant={severity(s)} title={survives} className="survives">
        {s.why} <Link to="/whatif">{t('whatif.links')}</Link>
      </Alert>
      <NewCluster />
      <Joining />
      <Part title={t('overview.topology')}>
        <Picture status={s} />
        <LinkedClusters />
      </Part>
      <div className="columns">
        <Part title={t('overview.concerns')}>
          {concerns.length === 0 ? (
            <p className="quiet">{t('overview.concerns.none')}</p>
          ) : (
            <ul className="lines">
              {concerns.slice(0, shown).map((c) => (
                <li key={c.key + c.name}>
                  <Label isCompact variant="outline" status={c.level}>
                    {t(c.key, { name: c.name })}
                  </Label>{' '}
                  <Link to={c.to}>{c.why || c.name}</Link>
                </li>
              ))}
              {concerns.length > shown && <li>{t('overview.concerns.more', { n: concerns.length - shown })}</li>}
            </ul>
          )}
        </Part>
        <Part title={t('overview.latest')}>
          {latest.length === 0 ? (
            <p className="quiet">{t('overview.latest.none')}</p>
          ) : (
            <ul className="lines">
              {latest.map((e) => (
                <li key={e.id}>
                  <time dateTime={e.time}>{moment(e.time)}</time> <State of="level" value={e.level} />{' '}
                  <Link to={`/report/${e.id}`}>{e.text}</Link>
                </li>
              ))}
            </ul>
          )}
        </Part>
      </div>
      <Part title={t('nav.groups')}>
        <Table
          label={t('nav.groups')}
          rows={groups}
          keyOf={(g) => g.name}
          size={12}
          columns={[
            { label: t('common.name'), cell: (g) => <Link to={`/groups/${g.name}`}>{g.name}</Link> },
            { label: t('common.state'), cell: (g) => <State of="phase" value={g.phase} />, narrow: true },
            {
              label: t('common.owner'),
              cell: (g) => (g.owner ? <Link to={`/nodes/${g.owner}`}>{g.owner}</Link> : '–'),
            },
            { label: t('common.actions'), cell: (g) => <Actions small of={g.name} list={groupActions(t, g, s)} /> },
          ]}
        />
      </Part>
    </View>
  );
}

// NewCluster offers the wizard where nothing has been set up yet.
function NewCluster() {
  const { t } = useText();
  const { nodes, groups } = useStatus();
  const may = useMay('configure');
  if (!may || (nodes ?? []).length !== 1 || (groups ?? []).length > 0) return null;
  return (
    <Alert isInline variant="info" title={t('setup.new')}>
      <p>{t('setup.new.text')}</p>
      <Link to="/setup">{t('setup.open')}</Link>
    </Alert>
  );
}

function LinkedClusters() {
  const { t } = useText();
  const links = useStatus().links ?? [];
  if (links.length === 0) return null;
  return (
    <ul className="linked">
      {links.map((l) => {
        const reachable = !l.asked || (l.nodes ?? []).some((n) => n.reachable);
        return (
          <li key={l.name}>
            <Link to="/links">
              <Label variant="outline" status={reachable ? 'success' : 'warning'}>
                {l.name}:{' '}
                {[l.asks ? t('overview.asks') : '', l.asked ? t('overview.asked') : '']
                  .filter((x) => x !== '')
                  .join(', ')}
              </Label>
            </Link>
          </li>
        );
      })}
    </ul>
  );
}
