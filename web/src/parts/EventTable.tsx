import { Link } from 'react-router';
import type { Event } from '../api/types';
import { useText } from '../i18n/context';
import { clock, day } from '../model/format';
import { State } from './State';
import { Table } from './Table';

// EventTable shows lines of the log, each with the way to its report.
export function EventTable({ events, size = 50 }: { events: readonly Event[]; size?: number }) {
  const { t } = useText();
  return (
    <Table
      label={t('nav.events')}
      rows={events}
      keyOf={(e) => e.id}
      size={size}
      none={t('events.none')}
      columns={[
        {
          label: t('common.time'),
          narrow: true,
          cell: (e) => (
            <time dateTime={e.time}>
              {day(e.time)} {clock(e.time)}
            </time>
          ),
        },
        { label: t('events.level'), narrow: true, cell: (e) => <State of="level" value={e.level} /> },
        { label: t('common.node'), narrow: true, cell: (e) => e.node },
        { label: t('events.module'), narrow: true, cell: (e) => e.module },
        { label: t('events.event'), cell: (e) => <Link to={`/report/${e.id}`}>{e.text}</Link> },
      ]}
    />
  );
}
