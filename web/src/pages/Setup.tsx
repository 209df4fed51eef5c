import { Alert, Button, Form as Questions } from '@patternfly/react-core';
import { keepPreviousData, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { useNavigate } from 'react-router';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { components } from '../api/schema';
import { useHold, useStatus } from '../context';
import { useText } from '../i18n/context';
import {
  answersOf,
  formOf,
  stepOf,
  steps,
  type Answers,
  type AnswerProblem,
  type Form,
  type Step,
} from '../model/setup';
import { problemsOf } from '../model/problems';
import { Commands, commandsOf } from '../parts/Joining';
import { Loading } from '../parts/Loading';
import { GroupForm, NodesForm, ThirdForm } from '../parts/SetupForms';
import { Survival } from '../parts/Survival';
import { Trouble } from '../parts/Trouble';
import { Part, View } from '../parts/View';

type Draft = components['schemas']['Draft'];

const typed = 400; // milliseconds of silence before the answers are looked at
const mostLost = 8; // that are listed

const asking = (answers: Answers) => ({
  queryKey: ['draft', JSON.stringify(answers)],
  // Who types on takes back what he asked: the daemon answers one at a time.
  queryFn: ({ signal }: { signal: AbortSignal }) => answer(api.POST('/v1/config/draft', { body: answers, signal })),
  retry: false,
  staleTime: 60_000,
});

// Setup asks for what a cluster is made of and makes a cluster file of it, which is
// then applied like any other.
export default function Setup() {
  const version = useStatus().config.version;
  const { data, error } = useQuery({
    queryKey: ['answers', version],
    queryFn: () => answer(api.GET('/v1/config/draft')),
    staleTime: Infinity, // what was typed is not written over
  });
  if (error) return <Trouble error={error} />;
  if (!data) return <Loading />;
  return <Wizard begin={data} />;
}

function Wizard({ begin }: { begin: components['schemas']['DraftStart'] }) {
  const { t } = useText();
  const queries = useQueryClient();
  const navigate = useNavigate();
  const [form, setForm] = useState<Form>(() => formOf(begin.answers));
  const [step, setStep] = useState<Step>('nodes');
  const [tried, setTried] = useState(false); // to go on from this step
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState(false);
  const [leaving, leave] = useState<string | null>(null); // with a text for the editor
  const [changed, setChanged] = useState(false);
  const head = useRef<HTMLHeadingElement>(null);
  const answers = answersOf(form);
  const [settled, settle] = useSettled(answers, typed);
  const { data: draft } = useQuery({ ...asking(settled), placeholderData: keepPreviousData });
  useHold(changed && leaving === null);

  const at = steps.indexOf(step);
  const refused = (d: Draft | undefined) => (d?.refused ?? []).filter((p) => steps.indexOf(stepOf(p.field)) <= at);
  const shown = tried ? refused(draft) : [];
  const change = (f: Form) => {
    setChanged(true);
    setForm(f);
  };
  const go = (to: Step) => {
    setStep(to);
    setTried(false);
    setProblem(null);
  };
  const next = async () => {
    setBusy(true);
    try {
      const d = await queries.query(asking(answers));
      settle(answers);
      const bad = refused(d)[0];
      if (bad) {
        setTried(true);
        lead(bad, step, setStep);
      } else go(steps[at + 1] ?? 'file');
      setProblem(null);
    } catch (e) {
      setProblem(asProblem(e));
    }
    setBusy(false);
  };
  // Who hears the page hears where he is.
  const first = useRef(true);
  useEffect(() => {
    if (!first.current) head.current?.focus();
    first.current = false;
  }, [step]);
  useEffect(() => {
    if (leaving !== null) void navigate('/config', { state: { draft: leaving } });
  }, [leaving, navigate]);

  const nodes = (answers.nodes ?? []).map((n, i) => n.name || t('setup.node', { n: i + 1 }));
  const props = { form, change, problems: shown };
  return (
    <View title={t('setup.title')} state={<span className="quiet">{t('setup.intro')}</span>}>
      <nav aria-label={t('setup.steps')}>
        <ol className="steps">
          {steps.map((s, i) => (
            <li key={s}>
              <Button
                variant="link"
                isInline
                isDisabled={i > at}
                {...(s === step ? { 'aria-current': 'step' as const } : {})}
                onClick={() => go(s)}
              >
                {i + 1}. {t(`setup.step.${s}`)}
              </Button>
            </li>
          ))}
        </ol>
      </nav>
      <Lost list={begin.lost ?? []} />
      <Questions
        onSubmit={(e) => {
          e.preventDefault();
          if (step !== 'file' && !busy) void next();
        }}
      >
        <div>
          <h2 ref={head} tabIndex={-1} className="step-title">
            {t('setup.step', { n: at + 1, of: steps.length, title: t(`setup.step.${step}`) })}
          </h2>
          <Refusals list={shown} />
        </div>
        {problem && (
          <Alert isInline variant="danger" title={problem.message}>
            {problem.hint}
          </Alert>
        )}
        {step === 'nodes' && <NodesForm {...props} />}
        {step === 'third' && <ThirdForm {...props} nodes={nodes} />}
        {step === 'group' && <GroupForm {...props} />}
        {step === 'file' && <File draft={draft} />}
        <div className="actions">
          {at > 0 && (
            <Button variant="secondary" onClick={() => go(steps[at - 1] ?? 'nodes')}>
              {t('setup.back')}
            </Button>
          )}
          {step !== 'file' ? (
            <Button variant="primary" type="submit" isLoading={busy} isDisabled={busy}>
              {t('setup.next')}
            </Button>
          ) : (
            draft?.text && (
              <Button variant="primary" onClick={() => leave(draft.text ?? '')}>
                {t('setup.file.edit')}
              </Button>
            )
          )}
        </div>
      </Questions>
      {step === 'third' && draft?.setups && <Table setups={draft.setups} />}
    </View>
  );
}

// lead brings somebody to an answer that is refused.
function lead(p: AnswerProblem, step: Step, setStep: (s: Step) => void) {
  if (stepOf(p.field) !== step) setStep(stepOf(p.field));
  else setTimeout(() => document.getElementById(p.field)?.focus());
}

function useSettled(value: Answers, after: number): [Answers, (now: Answers) => void] {
  const [settled, settle] = useState(value);
  const key = JSON.stringify(value);
  useEffect(() => {
    const wait = setTimeout(() => settle(JSON.parse(key) as Answers), after);
    return () => clearTimeout(wait);
  }, [key, after]);
  return [settled, settle];
}

function Refusals({ list }: { list: readonly AnswerProblem[] }) {
  const { t } = useText();
  return (
    <div role="status">
      {list.length > 0 && (
        <Alert isInline variant="danger" title={t('setup.refused')}>
          <ul className="lines">
            {list.map((p) => (
              <li key={p.field + p.what}>
                {p.what}
                {p.hint && `; ${p.hint}`}
              </li>
            ))}
          </ul>
        </Alert>
      )}
    </div>
  );
}

function Lost({ list }: { list: readonly string[] }) {
  const { t } = useText();
  if (list.length === 0) return null;
  return (
    <Alert isInline variant="warning" title={t('setup.lost')}>
      <ul>
        {list.slice(0, mostLost).map((path) => (
          <li key={path}>
            <code>{path}</code>
          </li>
        ))}
        {list.length > mostLost && <li>{t('setup.lost.more', { n: list.length - mostLost })}</li>}
      </ul>
    </Alert>
  );
}

function Table({ setups }: { setups: NonNullable<Draft['setups']> }) {
  const { t } = useText();
  const chosen = setups.find((s) => s.chosen);
  return (
    <Part title={t('setup.table')}>
      <Survival setups={setups} />
      <p className="quiet">{t('setup.table.note')}</p>
      {chosen && <Bounds list={chosen.bounds ?? []} />}
    </Part>
  );
}

function Bounds({ list }: { list: readonly string[] }) {
  const { t } = useText();
  return (
    <>
      <h3 className="step-title">{t('setup.table.bounds')}</h3>
      <ul className="quiet">
        {list.map((b) => (
          <li key={b}>{b}</li>
        ))}
      </ul>
    </>
  );
}

function File({ draft }: { draft: Draft | undefined }) {
  const { t } = useText();
  const status = useStatus();
  if (!draft?.text) return <p className="quiet">{t('setup.making')}</p>;
  const warnings = problemsOf((draft.warnings ?? []).join('\n'));
  const known = (status.nodes ?? []).filter((n) => n.state !== 'unknown').map((n) => n.name);
  const join = (draft.join ?? []).filter((n) => !known.includes(n));
  const witness = draft.setups?.find((s) => s.chosen)?.third === 'witness' ? draft.join?.at(-1) : undefined;
  return (
    <>
      <p>{t('setup.file.text')}</p>
      <pre className="draft" tabIndex={0} aria-label={t('setup.step.file')}>
        {draft.text}
      </pre>
      {warnings.length === 0 ? (
        <Alert isInline isPlain variant="success" title={t('setup.file.none')} />
      ) : (
        <Alert isInline variant="warning" title={t('setup.file.warnings')}>
          <ul className="lines">
            {warnings.map((w) => (
              <li key={w.text}>{w.text}</li>
            ))}
          </ul>
        </Alert>
      )}
      {join.length > 0 && (
        <section>
          <h3 className="step-title">{t('join.title')}</h3>
          <p>{t('join.later')}</p>
          {join.map((n) => (
            <div key={n}>
              <p>{t('join.here', { node: status.node })}</p>
              <Commands list={[`tasuki token join --node ${n}`]} />
              <p>{t('join.here', { node: n })}</p>
              <Commands list={commandsOf(n, n === witness)} />
            </div>
          ))}
        </section>
      )}
    </>
  );
}
