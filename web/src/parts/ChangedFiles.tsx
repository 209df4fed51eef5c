import { Button } from '@patternfly/react-core';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { api, answer } from '../api/client';
import { useMay } from '../context';
import { useText } from '../i18n/context';
import { bytes, moment } from '../model/format';
import { Trouble } from './Trouble';

// ChangedFiles shows what has changed on one copy after a split brain, for whoever
// has to decide whose writes are given up. To look takes a while, so it is asked for.
export function ChangedFiles({ mirror, node }: { mirror: string; node: string }) {
  const { t } = useText();
  const allowed = useMay('operate');
  const [open, setOpen] = useState(false);
  const { data, error, isFetching } = useQuery({
    queryKey: ['files', mirror, node],
    queryFn: async () =>
      (
        await answer(
          api.POST('/v1/mirrors/{mirror}/{verb}', { params: { path: { mirror, verb: 'look' } }, body: { node } }),
        )
      ).files ?? null,
    enabled: open,
    retry: false,
    gcTime: 0,
    staleTime: Infinity,
  });
  if (!open)
    return (
      <Button
        variant="secondary"
        size="sm"
        isAriaDisabled={!allowed}
        {...(allowed ? {} : { title: t('common.noright', { role: 'operate' }) })}
        onClick={() => setOpen(true)}
      >
        {t('mirror.look')}
      </Button>
    );
  if (isFetching) return <p className="quiet">{t('common.loading')}</p>;
  if (error) return <Trouble error={error} />;
  const files = data?.files ?? [];
  return (
    <section aria-label={t('mirror.look')}>
      {data?.since && <p className="quiet">{t('mirror.look.since', { time: moment(data.since) })}</p>}
      {data?.text && <p>{data.text}</p>}
      {files.length === 0 && !data?.text && <p className="quiet">{t('mirror.look.none')}</p>}
      <ul className="lines">
        {files.map((f) => (
          <li key={f.path}>
            <time dateTime={f.time}>{moment(f.time)}</time> {bytes(f.size)} {f.path}
          </li>
        ))}
        {data?.more ? <li>{t('mirror.look.more', { n: data.more })}</li> : null}
      </ul>
    </section>
  );
}
