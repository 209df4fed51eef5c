import { Alert, PageSection } from '@patternfly/react-core';
import { asProblem } from '../api/client';
import { useText } from '../i18n/context';

// Trouble shows an error with what to do about it.
export function Trouble({ error }: { error: unknown }) {
  const { t } = useText();
  const p = asProblem(error);
  return (
    <PageSection>
      <Alert isInline variant="danger" title={p.message || t('common.error')}>
        {p.hint && t('common.hint', { hint: p.hint })}
      </Alert>
    </PageSection>
  );
}
