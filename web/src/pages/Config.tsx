import { Alert, Button, TextInput } from '@patternfly/react-core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { Link, useLocation, useNavigate } from 'react-router';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { ConfigPlan, ConfigVersion } from '../api/types';
import { useHold, useStatus } from '../context';
import { useText } from '../i18n/context';
import { around, diff } from '../model/diff';
import { moment } from '../model/format';
import { offsetOf, problemsOf, type FileProblem } from '../model/problems';
import { Actions } from '../parts/Dialogs';
import { Editor } from '../parts/Editor';
import { Foreseen } from '../parts/Foreseen';
import { Joining } from '../parts/Joining';
import { Loading } from '../parts/Loading';
import { Table } from '../parts/Table';
import { Trouble } from '../parts/Trouble';
import { Part, View } from '../parts/View';

const typed = 300; // milliseconds of silence before the text is checked
const foreseen = 1000; // and before it is asked what would follow, which costs more

const configOf = (version?: number) =>
  answer(api.GET('/v1/config', { params: { query: version === undefined ? {} : { version } } }));

// Config shows the cluster file, and what a change of it would do while it is
// being typed.
export default function Config() {
  const force = useStatus().config;
  const { data, error } = useQuery({ queryKey: ['config', force.version], queryFn: () => configOf() });
  if (error) return <Trouble error={error} />;
  if (!data) return <Loading />;
  return <Editing inForce={data} />;
}

interface Draft {
  text: string;
  base: number; // the version that it was made from
  note: string;
}

function Editing({ inForce }: { inForce: ConfigVersion & { text: string } }) {
  const { t } = useText();
  const queries = useQueryClient();
  const given = (useLocation().state as { draft?: string } | null)?.draft; // by the set-up wizard
  const [draft, setDraft] = useState<Draft>({
    text: given ?? inForce.text,
    base: inForce.version,
    note: given === undefined ? '' : t('setup.note'),
  });
  const editor = useRef<HTMLTextAreaElement>(null);
  const changed = draft.text !== inForce.text;
  const stale = draft.base !== inForce.version;
  const check = useCheck(draft, changed);
  useHold(changed);

  // What nobody has touched follows the version in force.
  const untouched = useRef(given === undefined);
  const navigate = useNavigate();
  useEffect(() => {
    if (given !== undefined) void navigate('/config', { replace: true }); // else it would come back with a reload
  }, [given, navigate]);
  useEffect(() => {
    if (untouched.current) setDraft({ text: inForce.text, base: inForce.version, note: '' });
  }, [inForce]);
  const edit = (part: Partial<Draft>) => {
    untouched.current = false;
    setDraft((d) => ({ ...d, ...part }));
  };
  const discard = () => {
    untouched.current = true;
    setDraft({ text: inForce.text, base: inForce.version, note: '' });
  };
  const show = (p: FileProblem) => {
    const at = offsetOf(draft.text, p.line, p.column);
    const el = editor.current;
    if (!el) return;
    el.focus();
    el.setSelectionRange(at, at + 1);
    el.scrollTop = (el.scrollHeight / draft.text.split('\n').length) * Math.max(0, p.line - 6);
  };
  const apply = {
    label: t('config.apply'),
    need: 'configure' as const,
    sure: t('config.apply.sure'),
    run: async () => {
      const begun = await answer(
        api.POST('/v1/config/apply', { body: { text: draft.text, base: draft.base, note: draft.note } }),
      );
      untouched.current = true;
      await queries.invalidateQueries({ queryKey: ['config'] });
      await queries.invalidateQueries({ queryKey: ['history'] });
      return begun;
    },
  };
  return (
    <View
      title={t('nav.config')}
      state={
        <span className="quiet">
          {t('config.version', { version: inForce.version, author: inForce.author ?? '–' })}
        </span>
      }
      actions={
        changed ? (
          <div className="actions">
            <Button size="sm" variant="link" onClick={discard}>
              {t('config.discard')}
            </Button>
            {check.good && !stale && <Actions of={t('config.text')} list={[apply]} />}
          </div>
        ) : (
          <Link to="/setup">{t('setup.title')}</Link>
        )
      }
    >
      {stale && (
        <Alert isInline variant="warning" title={t('config.moved', { version: inForce.version, base: draft.base })}>
          <Button variant="link" isInline onClick={() => edit({ base: inForce.version })}>
            {t('config.rebase')}
          </Button>
        </Alert>
      )}
      {!changed && <Joining />}
      <div className="editing">
        <Part title={t('config.text')}>
          <Editor
            ref={editor}
            label={t('config.text')}
            text={draft.text}
            change={(text) => edit({ text })}
            problems={check.problems}
          />
        </Part>
        <Part title={t('config.changes')}>
          <div
            className="checks"
            aria-live="polite"
            data-check={check.busy ? 'busy' : check.problems.length > 0 ? 'bad' : 'good'}
          >
            {!changed && <p className="quiet">{t('config.same')}</p>}
            {check.busy && <p className="quiet">{t('config.checking')}</p>}
            <Problems
              list={check.problems}
              show={show}
              title={t('config.problems', { n: check.problems.length })}
              variant="danger"
            />
            {check.other && (
              <Alert isInline variant="danger" title={check.other.message}>
                {check.other.hint}
              </Alert>
            )}
            {changed && check.plan && <Plan plan={check.plan} show={show} />}
          </div>
          {changed && check.good && (
            <label className="note">
              {t('config.note')}
              <TextInput value={draft.note} onChange={(_, note) => edit({ note })} aria-label={t('config.note')} />
            </label>
          )}
        </Part>
      </div>
      {changed && (
        <div className="columns">
          <Part title={t('config.diff')}>
            <Differences before={inForce.text} after={draft.text} />
          </Part>
          {check.good && <Follows text={draft.text} />}
        </div>
      )}
      <History edit={edit} inForce={inForce.version} />
    </View>
  );
}

interface Check {
  busy: boolean;
  good: boolean; // it can be applied
  problems: FileProblem[];
  plan: ConfigPlan | null;
  other: Problem | null; // why it could not be checked
}

const unchecked: Check = { busy: false, good: false, problems: [], plan: null, other: null };

// useCheck has the daemon check a draft when somebody stops typing.
function useCheck({ text, base }: Draft, changed: boolean): Check {
  const settled = useSettled(text, typed);
  const { data, error } = useQuery({
    queryKey: ['plan', settled, base],
    queryFn: () => answer(api.POST('/v1/config/plan', { body: { text: settled, base } })),
    enabled: changed && settled === text,
    retry: false,
    gcTime: 0,
  });
  if (!changed) return unchecked;
  if (settled !== text || (!data && !error)) return { ...unchecked, busy: true };
  if (data) return { ...unchecked, good: !data.refused, plan: data };
  const p = asProblem(error);
  return p.code === 'config-invalid' ? { ...unchecked, problems: problemsOf(p.message) } : { ...unchecked, other: p };
}

// useSettled returns a value once it has stayed the same for that many
// milliseconds.
function useSettled<T>(value: T, after: number): T {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const wait = setTimeout(() => settle(value), after);
    return () => clearTimeout(wait);
  }, [value, after]);
  return settled;
}

interface ProblemsProps {
  list: readonly FileProblem[];
  title: string;
  variant: 'danger' | 'warning';
  show: (p: FileProblem) => void;
}

function Problems({ list, title, variant, show }: ProblemsProps) {
  const { t } = useText();
  if (list.length === 0) return null;
  return (
    <Alert isInline variant={variant} title={title}>
      <ul className="lines problems">
        {list.map((p, i) => (
          <li key={i}>
            {p.line > 0 && (
              <Button variant="link" isInline onClick={() => show(p)}>
                {t('config.at', { line: p.line, column: p.column })}
              </Button>
            )}{' '}
            {p.text}
          </li>
        ))}
      </ul>
    </Alert>
  );
}

function Plan({ plan, show }: { plan: ConfigPlan; show: (p: FileProblem) => void }) {
  const { t } = useText();
  return (
    <>
      {plan.refused ? (
        <Alert isInline variant="danger" title={t('config.refused')}>
          {plan.refused.message} {plan.refused.hint}
        </Alert>
      ) : (
        <Alert isInline variant="success" title={t('config.good')} />
      )}
      <Problems
        list={problemsOf((plan.warnings ?? []).join('\n'))}
        show={show}
        title={t('config.warnings')}
        variant="warning"
      />
      <ul className="lines changes">
        {(plan.changes ?? []).length === 0 && <li className="quiet">{t('config.changes.none')}</li>}
        {plan.changes?.map((c) => (
          <li key={c}>{c}</li>
        ))}
      </ul>
    </>
  );
}

// Follows asks the shipped core what it would do about a file that can be applied.
function Follows({ text }: { text: string }) {
  const { t } = useText();
  const settled = useSettled(text, foreseen);
  const { data, error, isFetching } = useQuery({
    queryKey: ['simulate', 'apply', settled],
    queryFn: ({ signal }) => answer(api.POST('/v1/simulate', { body: { apply: settled }, signal })),
    enabled: settled === text,
    retry: false,
    gcTime: 0,
  });
  return (
    <section className="foreseen" aria-label={t('config.foreseen')} aria-busy={isFetching || settled !== text}>
      <h2 className="supposed">{t('config.foreseen')}</h2>
      {data ? (
        <Foreseen of={data} />
      ) : error ? (
        <Trouble error={error} />
      ) : (
        <p className="quiet">{t('config.foreseeing')}</p>
      )}
    </section>
  );
}

function Differences({ before, after }: { before: string; after: string }) {
  const { t } = useText();
  const signs = { same: ' ', gone: '-', new: '+' };
  return (
    <pre className="diff" tabIndex={0} aria-label={t('config.diff')}>
      {around(diff(before, after)).map((l, i) => (
        <span key={i} className={l?.kind ?? 'skipped'}>
          {l
            ? `${String(l.before || '').padStart(4)} ${String(l.after || '').padStart(4)} ${signs[l.kind]} ${l.text}`
            : t('config.skipped')}
        </span>
      ))}
    </pre>
  );
}

function History({ edit, inForce }: { edit: (part: Partial<Draft>) => void; inForce: number }) {
  const { t } = useText();
  const [error, setError] = useState<unknown>(null);
  const { data } = useQuery({ queryKey: ['history', inForce], queryFn: () => answer(api.GET('/v1/config/history')) });
  const take = (version: number) => {
    configOf(version).then((c) => {
      edit({ text: c.text, base: inForce, note: t('config.rolled', { version }) });
      scrollTo({ top: 0 });
    }, setError);
  };
  return (
    <Part title={t('config.history')}>
      {error !== null && <Trouble error={error} />}
      <Table
        label={t('config.history')}
        rows={[...(data ?? [])].reverse()}
        keyOf={(v) => String(v.version)}
        size={10}
        columns={[
          { label: '#', cell: (v) => v.version, narrow: true },
          { label: t('common.time'), cell: (v) => <time dateTime={v.time}>{moment(v.time)}</time>, narrow: true },
          { label: t('users.author'), cell: (v) => v.author ?? '' },
          { label: t('config.note'), cell: (v) => v.note ?? '' },
          {
            label: t('common.actions'),
            cell: (v) =>
              v.version !== inForce && (
                <Button variant="link" isInline onClick={() => take(v.version)}>
                  {t('config.rollback')}
                </Button>
              ),
          },
        ]}
      />
    </Part>
  );
}
