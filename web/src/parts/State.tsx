import { Label, type LabelProps } from '@patternfly/react-core';
import { useText } from '../i18n/context';

type Color = NonNullable<LabelProps['status']>;

const colors: Record<string, Color> = {
  online: 'success',
  up: 'success',
  good: 'success',
  in_sync: 'success',
  starting: 'info',
  stopping: 'info',
  copying: 'info',
  suspended: 'info',
  info: 'info',
  suspect: 'warning',
  left: 'warning',
  outdated: 'warning',
  warn: 'warning',
  failed: 'danger',
  'start-failed': 'danger',
  'stop-failed': 'danger',
  bad: 'danger',
  down: 'danger',
  split: 'danger',
  error: 'danger',
};

interface Props {
  of: 'phase' | 'resource' | 'node' | 'verdict' | 'copy' | 'level';
  value: string;
}

// State shows a state by a word, a color and a sign.
export function State({ of, value }: Props) {
  const { word } = useText();
  const status = colors[value];
  return (
    <Label isCompact variant="outline" {...(status ? { status } : {})} data-state={value}>
      {word(of, value)}
    </Label>
  );
}
