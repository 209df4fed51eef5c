// Parts of forms.
import { Alert, Checkbox, FormGroup, TextInput } from '@patternfly/react-core';
import type { ReactNode } from 'react';
import type { Problem } from '../api/client';
import { roles } from '../api/types';
import { useText } from '../i18n/context';

export function Field({
  id,
  label,
  value,
  change,
  secret,
}: {
  id: string;
  label: string;
  value: string;
  change: (v: string) => void;
  secret?: boolean;
}) {
  return (
    <FormGroup label={label} fieldId={id} isRequired>
      <TextInput
        id={id}
        value={value}
        type={secret ? 'password' : 'text'}
        autoComplete={secret ? 'new-password' : 'off'}
        onChange={(_, v) => change(v)}
        isRequired
      />
    </FormGroup>
  );
}

// Refused says why the daemon did not do what was asked for.
export function Refused({ problem }: { problem: Problem | null }): ReactNode {
  return (
    problem && (
      <Alert isInline variant="danger" title={problem.message}>
        {problem.hint}
      </Alert>
    )
  );
}

// RoleBoxes are a box for each role.
export function RoleBoxes({
  id,
  chosen,
  change,
}: {
  id: string;
  chosen: readonly string[];
  change: (roles: readonly string[]) => void;
}) {
  const { t } = useText();
  return (
    <FormGroup label={t('users.roles')} role="group" fieldId={id}>
      {roles.map((r) => (
        <Checkbox
          key={r}
          id={`${id}-${r}`}
          label={t(`role.${r}`)}
          isChecked={chosen.includes(r)}
          onChange={(_, on) => change(on ? [...chosen, r] : chosen.filter((x) => x !== r))}
        />
      ))}
    </FormGroup>
  );
}
