import {
  Alert,
  Button,
  Form,
  FormGroup,
  FormSelect,
  FormSelectOption,
  Modal,
  ModalBody,
  ModalFooter,
  ModalHeader,
  TextInput,
} from '@patternfly/react-core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { Role } from '../api/types';
import { useText } from '../i18n/context';
import { moment } from '../model/format';
import { Actions } from './Dialogs';
import { Field, Refused, RoleBoxes } from './Fields';
import { Loading } from './Loading';
import { Table } from './Table';
import { Trouble } from './Trouble';
import { Part } from './View';

const day = 24 * 3_600_000_000_000; // in the nanoseconds of the API
const lives = [1, 7, 30, 90, 365, 730]; // days, up to what the daemon allows
const usual = 90;

// AccessTokens are what scripts show with every call of the API.
export function AccessTokens() {
  const { t } = useText();
  const queries = useQueryClient();
  const [open, setOpen] = useState(false);
  const { data, error } = useQuery({
    queryKey: ['access-tokens'],
    queryFn: async () => (await answer(api.GET('/v1/access-tokens'))) ?? [],
  });
  const reread = () => queries.invalidateQueries({ queryKey: ['access-tokens'] });
  if (error) return <Trouble error={error} />;
  if (!data) return <Loading />;
  return (
    <Part
      title={t('tokens.title')}
      actions={
        <Button variant="secondary" size="sm" onClick={() => setOpen(true)}>
          {t('tokens.add')}
        </Button>
      }
    >
      <Table
        label={t('tokens.title')}
        rows={data}
        keyOf={(a) => a.id}
        none={t('tokens.none')}
        columns={[
          { label: t('tokens.for'), cell: (a) => a.name },
          { label: t('users.roles'), cell: (a) => (a.roles ?? []).join(', ') },
          {
            label: t('tokens.until'),
            cell: (a) => (
              <>
                <time dateTime={a.expires}>{moment(a.expires)}</time>{' '}
                {Date.parse(a.expires) < Date.now() && <span className="alarm">{t('tokens.expired')}</span>}
              </>
            ),
            narrow: true,
          },
          { label: t('users.author'), cell: (a) => a.author },
          {
            label: t('common.actions'),
            cell: (a) => (
              <Actions
                small
                of={a.name}
                list={[
                  {
                    label: t('tokens.remove'),
                    need: 'configure',
                    sure: t('tokens.remove.sure', { name: a.name }),
                    run: async () => {
                      const begun = await answer(
                        api.DELETE('/v1/access-tokens/{id}', { params: { path: { id: a.id } } }),
                      );
                      await reread();
                      return begun;
                    },
                  },
                ]}
              />
            ),
          },
        ]}
      />
      {open && (
        <NewToken
          close={() => {
            setOpen(false);
            void reread();
          }}
        />
      )}
    </Part>
  );
}

// NewToken asks for what a token is for, and shows it: it cannot be had again.
function NewToken({ close }: { close: () => void }) {
  const { t } = useText();
  const [name, setName] = useState('');
  const [chosen, setChosen] = useState<readonly string[]>(['read']);
  const [days, setDays] = useState(usual);
  const [token, setToken] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const make = async () => {
    try {
      const body = { name, roles: chosen as Role[], ttl: days * day };
      setToken((await answer(api.POST('/v1/access-tokens', { body }))).token);
    } catch (e) {
      setProblem(asProblem(e));
    }
  };
  return (
    <Modal isOpen variant="small" onClose={close} aria-labelledby="token-title">
      <ModalHeader title={token === '' ? t('tokens.add') : `${t('tokens.made')}: ${name}`} labelId="token-title" />
      <ModalBody>
        {token === '' ? (
          <Form
            id="token"
            onSubmit={(e) => {
              e.preventDefault();
              void make();
            }}
          >
            <Field id="token-name" label={t('tokens.for')} value={name} change={setName} />
            <RoleBoxes id="token-roles" chosen={chosen} change={setChosen} />
            <FormGroup label={t('tokens.life')} fieldId="token-life">
              <FormSelect id="token-life" value={days} onChange={(_, d) => setDays(Number(d))}>
                {lives.map((n) => (
                  <FormSelectOption key={n} value={n} label={t('tokens.days', { n })} />
                ))}
              </FormSelect>
            </FormGroup>
            <Refused problem={problem} />
          </Form>
        ) : (
          <Shown token={token} />
        )}
      </ModalBody>
      <ModalFooter>
        {token === '' ? (
          <>
            <Button type="submit" form="token" variant="primary" isDisabled={name.trim() === '' || chosen.length === 0}>
              {t('tokens.add')}
            </Button>
            <Button variant="link" onClick={close}>
              {t('common.cancel')}
            </Button>
          </>
        ) : (
          <Button variant="primary" onClick={close}>
            {t('common.close')}
          </Button>
        )}
      </ModalFooter>
    </Modal>
  );
}

function Shown({ token }: { token: string }) {
  const { t } = useText();
  const field = useRef<HTMLInputElement>(null);
  const [copied, setCopied] = useState(false);
  const copy = () => {
    field.current?.select(); // so that it can be copied by hand where the browser does not let a page
    navigator.clipboard.writeText(token).then(
      () => setCopied(true),
      () => setCopied(false),
    );
  };
  return (
    <div className="checks">
      <Alert isInline variant="warning" title={t('tokens.once')}>
        {t('tokens.use')}
      </Alert>
      <div className="secret">
        <TextInput ref={field} value={token} readOnly aria-label={t('tokens.text')} />
        <Button variant="secondary" onClick={copy}>
          {t('tokens.copy')}
        </Button>
      </div>
      <p className="quiet" aria-live="polite">
        {copied && t('tokens.copied')}
      </p>
    </div>
  );
}
