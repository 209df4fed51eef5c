import { Alert } from '@patternfly/react-core';
import type { Maintenance } from '../api/types';
import { useText } from '../i18n/context';
import { moment } from '../model/format';

// MaintenanceNote says who works here, until when, and what is not done meanwhile.
export function MaintenanceNote({ until, owner, reason, unprotected }: Maintenance) {
  const { t } = useText();
  return (
    <Alert isInline variant="warning" title={t('maintenance.until', { time: moment(until), owner, reason })}>
      {unprotected}
    </Alert>
  );
}
