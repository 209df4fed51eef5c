import { FormSelect, FormSelectOption, TextInput } from '@patternfly/react-core';
import type { ReactNode } from 'react';
import { useText } from '../i18n/context';

// Filters is a row of what a list can be narrowed by.
export function Filters({ children }: { children: ReactNode }) {
  return <div className="filters">{children}</div>;
}

interface TextProps {
  label: string;
  value: string;
  change: (value: string) => void;
}

export function TextFilter({ label, value, change }: TextProps) {
  return (
    <label>
      {label}
      <TextInput type="search" value={value} onChange={(_, v) => change(v)} aria-label={label} />
    </label>
  );
}

interface ChoiceProps extends TextProps {
  options: readonly (readonly [value: string, label: string])[];
}

export function ChoiceFilter({ label, value, change, options }: ChoiceProps) {
  const { t } = useText();
  return (
    <label>
      {label}
      <FormSelect value={value} onChange={(_, v) => change(v)} aria-label={label}>
        <FormSelectOption value="" label={t('common.all')} />
        {options.map(([v, l]) => (
          <FormSelectOption key={v} value={v} label={l} />
        ))}
      </FormSelect>
    </label>
  );
}
