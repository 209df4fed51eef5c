import { Alert, Button, Form, FormGroup, FormSelect, FormSelectOption, TextInput } from '@patternfly/react-core';
import { useState } from 'react';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { HostAnswer } from '../api/types';
import { useMay, useStatus, useView } from '../context';
import { useText } from '../i18n/context';
import { EventTable } from '../parts/EventTable';
import { Table } from '../parts/Table';
import { Part, View } from '../parts/View';

export default function Links() {
  const { t } = useText();
  const s = useStatus();
  const { events } = useView();
  const mayAsk = useMay('request');
  const links = s.links ?? [];
  const requests = events.filter((e) => e.code.startsWith('request')).reverse();
  return (
    <View title={t('nav.links')}>
      <Part title={t('links.links')}>
        <Table
          label={t('links.links')}
          rows={links}
          keyOf={(l) => l.name}
          none={t('links.none')}
          columns={[
            { label: t('common.name'), cell: (l) => l.name },
            {
              label: t('common.kind'),
              cell: (l) =>
                [l.asks ? t('overview.asks') : '', l.asked ? t('overview.asked') : '']
                  .filter((x) => x !== '')
                  .join(', '),
            },
            {
              label: t('links.verbs'),
              cell: (l) =>
                [...(l.verbs ?? []), ...(l.groups ?? []), ...(l.scripts ?? []), ...(l.guests ?? [])].join(', ') || '–',
            },
            {
              label: t('links.nodes'),
              cell: (l) => (
                <ul className="lines">
                  {(l.nodes ?? []).map((n) => (
                    <li key={n.name}>
                      {n.name} {(n.addresses ?? []).join(', ')}{' '}
                      <span className={n.reachable ? 'quiet' : 'alarm'}>
                        {t(n.reachable ? 'links.reachable' : 'links.unreachable')}
                      </span>
                    </li>
                  ))}
                </ul>
              ),
            },
          ]}
        />
      </Part>
      {mayAsk && links.some((l) => l.asked) && (
        <Part title={t('links.request')}>
          <Ask known={links.flatMap((l) => (l.asked ? (l.nodes ?? []).map((n) => n.name) : []))} />
        </Part>
      )}
      <Part title={t('links.log')}>
        <EventTable events={requests} size={20} />
      </Part>
    </View>
  );
}

const verbs = ['GRP_FAILOVER', 'EXEC_SCRIPT'] as const;

function Ask({ known }: { known: string[] }) {
  const { t } = useText();
  const [hosts, setHosts] = useState(known.join(', '));
  const [verb, setVerb] = useState<(typeof verbs)[number]>('EXEC_SCRIPT');
  const [what, setWhat] = useState('');
  const [answers, setAnswers] = useState<HostAnswer[] | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const send = async () => {
    setProblem(null);
    setAnswers(null);
    const list = hosts
      .split(',')
      .map((h) => h.trim())
      .filter((h) => h !== '');
    const body = {
      id: crypto.randomUUID(),
      verb,
      hosts: list,
      ...(verb === 'EXEC_SCRIPT' ? { script: what } : { group: what }),
    };
    try {
      setAnswers((await answer(api.POST('/v1/send', { body }))) ?? []);
    } catch (e) {
      setProblem(asProblem(e));
    }
  };
  return (
    <Form
      onSubmit={(e) => {
        e.preventDefault();
        void send();
      }}
    >
      <FormGroup label={t('links.hosts')} fieldId="hosts">
        <TextInput id="hosts" value={hosts} onChange={(_, v) => setHosts(v)} isRequired />
      </FormGroup>
      <FormGroup label={t('links.verb')} fieldId="verb">
        <FormSelect id="verb" value={verb} onChange={(_, v) => setVerb(v === 'GRP_FAILOVER' ? v : 'EXEC_SCRIPT')}>
          {verbs.map((v) => (
            <FormSelectOption key={v} value={v} label={v} />
          ))}
        </FormSelect>
      </FormGroup>
      <FormGroup label={t(verb === 'EXEC_SCRIPT' ? 'links.script' : 'common.group')} fieldId="what">
        <TextInput id="what" value={what} onChange={(_, v) => setWhat(v)} isRequired />
      </FormGroup>
      {problem && (
        <Alert isInline variant="danger" title={problem.message}>
          {problem.hint}
        </Alert>
      )}
      {answers && (
        <Alert isInline variant={answers.some((a) => a.error) ? 'warning' : 'success'} title={t('links.answers')}>
          <ul className="lines">
            {answers.map((a) => (
              <li key={a.host}>
                {a.host}: {a.error ? `${a.error.message} ${a.error.hint ?? ''}` : (a.answer?.text ?? '')}
              </li>
            ))}
          </ul>
        </Alert>
      )}
      <div>
        <Button type="submit" variant="secondary" isDisabled={hosts === '' || what === ''}>
          {t('links.send')}
        </Button>
      </div>
    </Form>
  );
}
