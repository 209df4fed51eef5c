import { Alert } from '@patternfly/react-core';
import type { Simulation, SimStep } from '../api/types';
import { useText } from '../i18n/context';
import { fate } from '../model/foreseen';
import { moment, span } from '../model/format';
import { State } from './State';
import { Part } from './View';

const ms = 1e6; // nanoseconds

// Foreseen shows what the shipped core has answered.
export function Foreseen({ of: r }: { of: Simulation }) {
  const { t } = useText();
  if (r.refused)
    return (
      <Alert isInline variant="danger" title={t('foreseen.refused', { text: r.refused.message })}>
        {r.refused.hint && t('common.hint', { hint: r.refused.hint })}
      </Alert>
    );
  const worse = (r.groups ?? []).some((g) => !fate(g).good);
  return (
    <>
      <Alert
        isInline
        variant={worse ? 'danger' : r.after.survives < r.before.survives ? 'warning' : 'success'}
        title={t('foreseen.survives', { before: r.before.survives, after: r.after.survives })}
      >
        {r.after.why}
      </Alert>
      <Part title={t('foreseen.groups')}>
        <Groups r={r} />
      </Part>
      <Part title={t('foreseen.steps')}>
        <Steps steps={r.steps ?? []} />
        {!r.complete && <p>{t('foreseen.endless')}</p>}
      </Part>
      <Nodes r={r} />
      <Footing r={r} />
    </>
  );
}

function Groups({ r }: { r: Simulation }) {
  const { t, word } = useText();
  const groups = r.groups ?? [];
  const touched = groups.filter((g) => fate(g).key !== 'foreseen.untouched' && fate(g).key !== 'foreseen.stopped');
  return (
    <ul className="lines">
      {touched.map((g) => {
        const f = fate(g);
        return (
          <li key={g.name} data-key={g.name}>
            <strong>{g.name}</strong>{' '}
            <span className={f.good ? undefined : 'alarm'}>
              {t(f.key, { ...f.values, phase: word('phase', g.phase) })}
            </span>{' '}
            <span className="quiet">{g.why}</span>
            {g.spare && <div className="quiet">{t('foreseen.spare', { nodes: g.spare.join(', ') })}</div>}
            {(g.others ?? [])
              .filter((why) => !(g.why ?? '').includes(why))
              .map((why) => (
                <div key={why} className="quiet">
                  {t('foreseen.other', { why })}
                </div>
              ))}
          </li>
        );
      })}
      {touched.length < groups.length && (
        <li className="quiet">{t('foreseen.rest', { n: groups.length - touched.length })}</li>
      )}
    </ul>
  );
}

function Steps({ steps }: { steps: readonly SimStep[] }) {
  const { t } = useText();
  if (steps.length === 0) return <p className="quiet">{t('foreseen.nothing')}</p>;
  return (
    <ol className="story">
      {steps.map((s, i) => {
        const told = s.why && !s.text.includes(s.why) && !steps.slice(0, i).some((x) => x.why === s.why);
        return (
          <li key={i} className={s.level === 'error' ? 'detect' : s.level === 'warn' ? 'decide' : undefined}>
            <span className="after">+{span(s.after / ms)}</span>
            <span className="where">{s.node}</span>
            <span className="what">
              {s.level !== 'info' && <State of="level" value={s.level} />} {s.text}
              {s.limit ? (
                <span className="quiet">
                  {' '}
                  {t(s.known ? 'foreseen.known' : 'foreseen.unknown', { limit: span(s.limit / ms) })}
                </span>
              ) : null}
              {told && <em> {t('report.why', { why: s.why ?? '' })}</em>}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

// Nodes are those that are not as they should be then.
function Nodes({ r }: { r: Simulation }) {
  const { t } = useText();
  const out = (r.nodes ?? []).filter((n) => !n.on || n.state !== 'up');
  if (out.length === 0) return null;
  return (
    <Part title={t('foreseen.nodes')}>
      <ul className="lines">
        {out.map((n) => (
          <li key={n.name}>
            {n.name} <State of="node" value={n.state} /> <span className="quiet">{n.end ?? n.why}</span>
          </li>
        ))}
      </ul>
    </Part>
  );
}

// Footing is what the answer stands on.
function Footing({ r }: { r: Simulation }) {
  const { t } = useText();
  const bounds = (r.steps ?? []).some((s) => s.code === 'node-silent') ? (r.bounds ?? []).slice(0, 2) : [];
  return (
    <ul className="lines quiet">
      {bounds.map((b) => (
        <li key={b}>{t('foreseen.bound', { text: b })}</li>
      ))}
      {(r.assumed ?? []).map((a) => (
        <li key={a}>{t('foreseen.assumed', { text: a })}</li>
      ))}
      <li>{t('foreseen.from', { time: moment(r.time) })}</li>
    </ul>
  );
}
