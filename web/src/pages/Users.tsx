import { Button, Form, FormGroup, Modal, ModalBody, ModalFooter, ModalHeader, TextInput } from '@patternfly/react-core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { Role, User } from '../api/types';
import { useMay, useShared } from '../context';
import { useText } from '../i18n/context';
import { moment } from '../model/format';
import { AccessTokens } from '../parts/AccessTokens';
import { Actions } from '../parts/Dialogs';
import { Field, Refused, RoleBoxes } from '../parts/Fields';
import { Loading } from '../parts/Loading';
import { Table } from '../parts/Table';
import { Trouble } from '../parts/Trouble';
import { Part, View } from '../parts/View';

type Open = { kind: 'add' } | { kind: 'password' | 'roles'; user: User };

// Users are who may sign in. Whoever may not configure changes only the own
// password.
export default function Users() {
  const { t } = useText();
  const configure = useMay('configure');
  return (
    <View title={t('nav.users')}>
      {configure && <AllUsers />}
      {configure && <AccessTokens />}
      <Part title={t('users.own')}>
        <Own />
      </Part>
    </View>
  );
}

function AllUsers() {
  const { t } = useText();
  const queries = useQueryClient();
  const [open, setOpen] = useState<Open | null>(null);
  const { data, error } = useQuery({
    queryKey: ['users'],
    queryFn: async () => (await answer(api.GET('/v1/users'))) ?? [],
  });
  const reread = () => queries.invalidateQueries({ queryKey: ['users'] });
  if (error) return <Trouble error={error} />;
  if (!data) return <Loading />;
  return (
    <Part
      title={t('nav.users')}
      actions={
        <Button variant="secondary" size="sm" onClick={() => setOpen({ kind: 'add' })}>
          {t('users.add')}
        </Button>
      }
    >
      <Table
        label={t('nav.users')}
        rows={data}
        keyOf={(u) => u.name}
        columns={[
          { label: t('common.name'), cell: (u) => u.name },
          { label: t('users.roles'), cell: (u) => (u.roles ?? []).join(', ') },
          {
            label: t('users.changed'),
            cell: (u) => <time dateTime={u.changed}>{moment(u.changed)}</time>,
            narrow: true,
          },
          { label: t('users.author'), cell: (u) => u.author },
          {
            label: t('common.actions'),
            cell: (u) => (
              <div className="actions">
                <Button variant="link" isInline size="sm" onClick={() => setOpen({ kind: 'roles', user: u })}>
                  {t('users.setRoles')}
                </Button>
                <Button variant="link" isInline size="sm" onClick={() => setOpen({ kind: 'password', user: u })}>
                  {t('users.setPassword')}
                </Button>
                <Actions
                  small
                  of={u.name}
                  list={[
                    {
                      label: t('users.remove'),
                      need: 'configure',
                      sure: t('users.remove.sure', { name: u.name }),
                      run: async () => {
                        const begun = await answer(
                          api.DELETE('/v1/users/{user}', { params: { path: { user: u.name } } }),
                        );
                        await reread();
                        return begun;
                      },
                    },
                  ]}
                />
              </div>
            ),
          },
        ]}
      />
      {open && (
        <UserDialog
          open={open}
          close={() => {
            setOpen(null);
            void reread();
          }}
        />
      )}
    </Part>
  );
}

function UserDialog({ open, close }: { open: Open; close: () => void }) {
  const { t } = useText();
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [chosen, setChosen] = useState<readonly string[]>(open.kind === 'add' ? ['read'] : (open.user.roles ?? []));
  const [problem, setProblem] = useState<Problem | null>(null);
  const user = open.kind === 'add' ? name : open.user.name;
  const title = t(
    open.kind === 'add' ? 'users.add' : open.kind === 'password' ? 'users.setPassword' : 'users.setRoles',
  );
  const list = chosen as Role[];
  const save = async () => {
    try {
      if (open.kind === 'add') await answer(api.POST('/v1/users', { body: { name, password, roles: list } }));
      else if (open.kind === 'roles')
        await answer(api.POST('/v1/users/{user}/roles', { params: { path: { user } }, body: { roles: list } }));
      else await answer(api.POST('/v1/users/{user}/password', { params: { path: { user } }, body: { password } }));
      close();
    } catch (e) {
      setProblem(asProblem(e));
    }
  };
  return (
    <Modal isOpen variant="small" onClose={close} aria-labelledby="user-title">
      <ModalHeader title={open.kind === 'add' ? title : `${title}: ${user}`} labelId="user-title" />
      <ModalBody>
        <Form
          id="user"
          onSubmit={(e) => {
            e.preventDefault();
            void save();
          }}
        >
          {open.kind === 'add' && <Field id="user-name" label={t('signin.name')} value={name} change={setName} />}
          {open.kind !== 'roles' && (
            <Field id="user-password" label={t('users.password')} value={password} change={setPassword} secret />
          )}
          {open.kind !== 'password' && <RoleBoxes id="user-roles" chosen={chosen} change={setChosen} />}
          <Refused problem={problem} />
        </Form>
      </ModalBody>
      <ModalFooter>
        <Button type="submit" form="user" variant="primary">
          {title}
        </Button>
        <Button variant="link" onClick={close}>
          {t('common.cancel')}
        </Button>
      </ModalFooter>
    </Modal>
  );
}

function Own() {
  const { t } = useText();
  const { session } = useShared();
  const [old, setOld] = useState('');
  const [fresh, setFresh] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const save = async () => {
    try {
      await answer(api.POST('/v1/self/password', { body: { old, password: fresh } }));
      location.reload(); // the session is over with the password that began it
    } catch (e) {
      setProblem(asProblem(e));
    }
  };
  return (
    <Form
      className="own"
      onSubmit={(e) => {
        e.preventDefault();
        void save();
      }}
    >
      <input type="text" value={session.user} autoComplete="username" readOnly hidden />
      <FormGroup label={t('users.old')} fieldId="own-old">
        <TextInput
          id="own-old"
          type="password"
          autoComplete="current-password"
          value={old}
          onChange={(_, v) => setOld(v)}
        />
      </FormGroup>
      <FormGroup label={t('users.new')} fieldId="own-new">
        <TextInput
          id="own-new"
          type="password"
          autoComplete="new-password"
          value={fresh}
          onChange={(_, v) => setFresh(v)}
        />
      </FormGroup>
      <p className="quiet">{t('users.again')}</p>
      <Refused problem={problem} />
      <div>
        <Button type="submit" variant="secondary" isDisabled={old === '' || fresh === ''}>
          {t('users.setPassword')}
        </Button>
      </div>
    </Form>
  );
}
