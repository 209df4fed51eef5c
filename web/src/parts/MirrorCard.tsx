import { Alert, Progress } from '@patternfly/react-core';
import { mirrorActions } from '../actions';
import type { Mirror, MirrorCopy } from '../api/types';
import { useStatus } from '../context';
import { useText } from '../i18n/context';
import { bytes, moment, span } from '../model/format';
import { ChangedFiles } from './ChangedFiles';
import { Actions } from './Dialogs';
import { Facts } from './Facts';
import { State } from './State';
import { Part } from './View';

// MirrorCard shows a mirror disk with both copies and what can be done with it.
export function MirrorCard({ mirror: m }: { mirror: Mirror }) {
  const { t } = useText();
  const s = useStatus();
  return (
    <Part title={`${m.name} · ${m.group}`} actions={<Actions of={m.name} list={mirrorActions(t, m, s)} />}>
      {m.paused && (
        <Alert isInline variant="warning" title={t('concern.paused', { name: m.name })}>
          {m.paused.why} ({m.paused.author})
        </Alert>
      )}
      {m.forced && (
        <Alert isInline variant="danger" title={t('concern.forced', { name: m.name })}>
          {m.forced.why} ({m.forced.author})
        </Alert>
      )}
      <Facts
        list={[
          [t('mirror.mode'), m.mode],
          [t('mirror.mount'), m.mount],
          [t('mirror.insync'), (m.in_sync ?? []).join(', ')],
          [t('common.why'), m.why],
        ]}
      />
      <div className="columns copies">
        {(m.copies ?? []).map((c) => (
          <Copy key={c.node} mirror={m.name} copy={c} />
        ))}
      </div>
    </Part>
  );
}

function Copy({ mirror, copy: c }: { mirror: string; copy: MirrorCopy }) {
  const { t } = useText();
  const role =
    c.role === 'active' ? 'mirror.role.active' : c.role === 'standby' ? 'mirror.role.standby' : 'mirror.role.none';
  return (
    <section aria-label={c.node} className="copy">
      <h3>
        {c.node} <State of="copy" value={c.state} />
      </h3>
      {c.state === 'copying' && (
        <Progress
          value={c.percent ?? 0}
          title={t('mirror.progress', { name: mirror, node: c.node })}
          label={`${(c.percent ?? 0).toFixed(1)} %`}
          measureLocation="top"
        />
      )}
      {c.text && <p>{c.text}</p>}
      <Facts
        list={[
          [t('common.state'), `${t(role)}, ${t(c.connected ? 'mirror.connected' : 'mirror.disconnected')}`],
          [t('mirror.rate'), c.rate ? `${bytes(c.rate)}/s` : ''],
          [t('mirror.eta'), c.eta ? span(c.eta / 1e6) : ''],
          [t('mirror.dirty'), c.dirty ? bytes(c.dirty) : ''],
          [t('mirror.size'), c.size ? bytes(c.size) : ''],
          [t('mirror.device'), c.device],
          [t('common.since'), c.since ? moment(c.since) : ''],
          ...(c.state === 'split'
            ? ([
                [t('mirror.generation'), c.generation],
                [t('mirror.began'), c.began ? moment(c.began) : ''],
                [t('mirror.written'), c.written ? moment(c.written) : ''],
              ] as const)
            : []),
        ]}
      />
      {c.state === 'split' && <ChangedFiles mirror={mirror} node={c.node} />}
    </section>
  );
}
