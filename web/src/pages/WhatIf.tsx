import { Button, Form, FormGroup, FormSelect, FormSelectOption, TextInput } from '@patternfly/react-core';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useSearchParams } from 'react-router';
import { api, answer } from '../api/client';
import type { SimulateRequest, Status } from '../api/types';
import { useStatus } from '../context';
import { useText } from '../i18n/context';
import { asked, both, question } from '../model/foreseen';
import { Foreseen } from '../parts/Foreseen';
import { Loading } from '../parts/Loading';
import { Trouble } from '../parts/Trouble';
import { Part, View } from '../parts/View';

const kinds = ['kill', 'pull', 'leave', 'move', 'fail'] as const;
type Kind = (typeof kinds)[number];

// WhatIf asks what would happen. The question is the address of the page, so that
// other pages can ask one, and so that it can be shown to somebody else.
export default function WhatIf() {
  const { t } = useText();
  const [search, setSearch] = useSearchParams();
  const q = asked(search);
  const { data, error, isFetching, refetch } = useQuery({
    queryKey: ['simulate', q],
    queryFn: ({ signal }) => answer(api.POST('/v1/simulate', { body: q ?? {}, signal })),
    enabled: q !== null,
    staleTime: Infinity,
    gcTime: 0, // the cluster may have changed when it is asked again
    retry: false,
    placeholderData: keepPreviousData,
  });
  const ask = (next: SimulateRequest) => {
    if (q && question(next) === question(q)) void refetch();
    else setSearch(question(next));
  };
  return (
    <View title={t('nav.whatif')}>
      <Part title={t('whatif.question')}>
        <Question q={q} ask={ask} />
        <p className="quiet">{t('whatif.safe')}</p>
      </Part>
      <div className="foreseen" aria-busy={isFetching}>
        {q && data && !error && (
          <>
            <h2 className="supposed">{t('whatif.if', { what: (data.change ?? []).join(', ') })}</h2>
            <Foreseen of={data} />
          </>
        )}
        {q && error && <Trouble error={error} />}
        {isFetching && !data && <Loading />}
      </div>
    </View>
  );
}

function Question({ q, ask }: { q: SimulateRequest | null; ask: (q: SimulateRequest) => void }) {
  const { t } = useText();
  const s = useStatus();
  const first = kinds.find((k) => q?.[k] !== undefined) ?? 'kill';
  const [kind, setKind] = useState<Kind>(first);
  const [subject, setSubject] = useState('');
  const [detail, setDetail] = useState('');
  const subjects = subjectsOf(kind, s);
  const chosen = subjects.some(([v]) => v === subject) ? subject : (subjects[0]?.[0] ?? '');
  const details = detailsOf(t('group.byPolicy'), kind, chosen, s);
  const where = details.some(([v]) => v === detail) || kind === 'pull' ? detail : (details[0]?.[0] ?? '');
  const next = put(kind, chosen, kind === 'pull' && where === '' ? '1' : where);
  return (
    <Form
      className="question"
      onSubmit={(e) => {
        e.preventDefault();
        ask(next);
      }}
    >
      <Choice
        id="whatif-kind"
        label={t('whatif.kind')}
        value={kind}
        change={(k) => {
          setKind(k as Kind);
          setDetail('');
        }}
        options={kinds.map((k) => [k, t(`whatif.${k}`)])}
      />
      <Choice
        id="whatif-subject"
        label={t(`whatif.${kind}.of`)}
        value={chosen}
        change={setSubject}
        options={subjects}
      />
      {details.length > 0 && kind !== 'pull' && (
        <Choice id="whatif-detail" label={t('group.moveTo')} value={where} change={setDetail} options={details} />
      )}
      {kind === 'pull' && (
        <FormGroup label={t('whatif.device')} fieldId="whatif-device">
          <TextInput
            id="whatif-device"
            value={detail}
            placeholder="1"
            list="whatif-networks"
            onChange={(_, v) => setDetail(v.trim())}
          />
          <datalist id="whatif-networks">
            {details.map(([v, label]) => (
              <option key={v} value={v} label={label} />
            ))}
          </datalist>
        </FormGroup>
      )}
      <div className="actions">
        <Button type="submit" variant="primary" isDisabled={chosen === ''}>
          {t('whatif.ask')}
        </Button>
        {q && (
          <Button variant="secondary" isDisabled={chosen === ''} onClick={() => ask(both(q, next))}>
            {t('whatif.also')}
          </Button>
        )}
      </div>
    </Form>
  );
}

type Options = readonly (readonly [value: string, label: string])[];

function subjectsOf(kind: Kind, s: Status): Options {
  const named = (list: readonly { name: string }[] | null) => (list ?? []).map((x) => [x.name, x.name] as const);
  if (kind === 'move') return named(s.groups);
  if (kind !== 'fail') return named(s.nodes);
  return [
    ...(s.groups ?? []).flatMap((g) => (g.resources ?? []).map((r) => [r.name, `${r.name} (${g.name})`] as const)),
    ...(s.monitors ?? []).flatMap((m) =>
      (m.nodes ?? []).map((n) => [`${m.name}@${n.node}`, `${m.name} @ ${n.node}`] as const),
    ),
  ];
}

function detailsOf(anywhere: string, kind: Kind, subject: string, s: Status): Options {
  if (kind === 'move') {
    const g = (s.groups ?? []).find((x) => x.name === subject);
    return [['', anywhere], ...(g?.nodes ?? []).filter((n) => n !== g?.owner).map((n) => [n, n] as const)];
  }
  if (kind !== 'pull') return [];
  const n = (s.nodes ?? []).find((x) => x.name === subject);
  return (n?.addresses ?? []).map((a, i) => [String(i + 1), a.address] as const);
}

function put(kind: Kind, subject: string, detail: string): SimulateRequest {
  switch (kind) {
    case 'kill':
      return { kill: [subject] };
    case 'leave':
      return { leave: [subject] };
    case 'pull':
      return { pull: [`${subject}:${detail}`] };
    case 'move':
      return { move: detail === '' ? subject : `${subject}=${detail}` };
    case 'fail':
      return { fail: subject };
  }
}

function Choice({
  id,
  label,
  value,
  change,
  options,
}: {
  id: string;
  label: string;
  value: string;
  change: (v: string) => void;
  options: Options;
}) {
  return (
    <FormGroup label={label} fieldId={id}>
      <FormSelect id={id} value={value} onChange={(_, v) => change(v)}>
        {options.map(([v, text]) => (
          <FormSelectOption key={v} value={v} label={text} />
        ))}
      </FormSelect>
    </FormGroup>
  );
}
