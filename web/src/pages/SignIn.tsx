import { Alert, Button, Card, CardBody, CardTitle, Form, FormGroup, TextInput } from '@patternfly/react-core';
import { useState } from 'react';
import { asProblem, own, type Problem } from '../api/client';
import type { Session } from '../api/types';
import { useText } from '../i18n/context';

export function SignIn({ why, done }: { why: string; done: (s: Session) => void }) {
  const { t, language, change } = useText();
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const submit = async () => {
    setBusy(true);
    setProblem(null);
    try {
      done(await own<Session>('POST', '/session', { name, password }));
    } catch (e) {
      setProblem(asProblem(e));
      setPassword('');
      setBusy(false);
    }
  };
  return (
    <main className="signin">
      <Card>
        <CardTitle component="h1">
          <img src="/favicon.svg" alt="" width="32" height="32" /> Tasuki
        </CardTitle>
        <CardBody>
          <Form
            onSubmit={(e) => {
              e.preventDefault();
              void submit();
            }}
          >
            {why && !problem && <Alert isInline variant="info" title={t('signin.moved', { why })} />}
            {problem && (
              <Alert isInline variant="danger" title={problem.message} aria-live="assertive">
                {problem.hint}
              </Alert>
            )}
            <FormGroup label={t('signin.name')} fieldId="name" isRequired>
              <TextInput
                id="name"
                name="username"
                autoComplete="username"
                autoFocus
                isRequired
                value={name}
                onChange={(_, v) => setName(v)}
              />
            </FormGroup>
            <FormGroup label={t('signin.password')} fieldId="password" isRequired>
              <TextInput
                id="password"
                name="password"
                type="password"
                autoComplete="current-password"
                isRequired
                value={password}
                onChange={(_, v) => setPassword(v)}
              />
            </FormGroup>
            <Button
              type="submit"
              variant="primary"
              isBlock
              isDisabled={busy || name === '' || password === ''}
              isLoading={busy}
            >
              {t('signin.button')}
            </Button>
          </Form>
          <p className="quiet">{t('signin.first')}</p>
          <Button
            variant="link"
            isInline
            lang={language === 'en' ? 'ja' : 'en'}
            onClick={() => change(language === 'en' ? 'ja' : 'en')}
          >
            {t('menu.language')}
          </Button>
        </CardBody>
      </Card>
    </main>
  );
}
