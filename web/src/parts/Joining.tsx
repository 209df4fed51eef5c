import { Alert, Button, TextInput } from '@patternfly/react-core';
import { useState } from 'react';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { Node } from '../api/types';
import { useMay, useStatus } from '../context';
import { useText } from '../i18n/context';
import { Part } from './View';

const tokenLength = 3_600_000_000_000; // one hour, in nanoseconds

export const commandsOf = (node: string, witness: boolean, token = 'TOKEN'): readonly string[] =>
  witness
    ? [`tasuki witness join ${token} --node ${node}`, 'systemctl enable --now tasuki-witness']
    : [`tasuki join ${token} --node ${node}`, 'systemctl enable --now tasuki'];

// Joining makes tokens for nodes of the cluster file that nobody has seen yet.
export function Joining() {
  const { t } = useText();
  const may = useMay('configure');
  const waiting = (useStatus().nodes ?? []).filter((n) => n.state === 'unknown' && !n.self);
  if (waiting.length === 0 || !may) return null;
  return (
    <Part title={t('join.title')}>
      <div className="checks">
        <p className="quiet">{t('join.waiting', { names: waiting.map((n) => n.name).join(', ') })}</p>
        {waiting.map((n) => (
          <Token key={n.name} node={n} />
        ))}
      </div>
    </Part>
  );
}

function Token({ node }: { node: Node }) {
  const { t } = useText();
  const [token, setToken] = useState('');
  const [problem, setProblem] = useState<Problem | null>(null);
  const make = () =>
    answer(api.POST('/v1/tokens', { body: { purpose: 'join', subject: node.name, ttl: tokenLength } })).then(
      (made) => {
        setToken(made.token);
        setProblem(null);
      },
      (e: unknown) => setProblem(asProblem(e)),
    );
  if (token !== '')
    return (
      <div>
        <p>{t('join.text', { node: node.name })}</p>
        <Commands list={commandsOf(node.name, node.witness ?? false, token)} />
      </div>
    );
  return (
    <div>
      <Button variant="secondary" size="sm" onClick={() => void make()}>
        {t('join.make', { node: node.name })}
      </Button>
      {problem && (
        <Alert isInline variant="danger" title={problem.message}>
          {problem.hint}
        </Alert>
      )}
    </div>
  );
}

// Commands are lines to be typed elsewhere, each to be copied.
export function Commands({ list }: { list: readonly string[] }) {
  const { t } = useText();
  const [copied, setCopied] = useState('');
  return (
    <ul className="lines">
      {list.map((line) => (
        <li key={line} className="command">
          <TextInput readOnlyVariant="default" value={line} aria-label={line.slice(0, 40)} />
          <Button
            variant="secondary"
            size="sm"
            onClick={() => void navigator.clipboard.writeText(line).then(() => setCopied(line))}
          >
            {t(copied === line ? 'join.copied' : 'join.copy')}
          </Button>
        </li>
      ))}
    </ul>
  );
}
