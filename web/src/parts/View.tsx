import { Card, CardBody, CardTitle, PageSection, Title } from '@patternfly/react-core';
import type { ReactNode } from 'react';

// View is one view of the page: a title, what can be done, and what there is.
export function View({
  title,
  state,
  actions,
  children,
}: {
  title: string;
  state?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}) {
  return (
    <PageSection>
      <header className="view-head">
        <Title headingLevel="h1">{title}</Title>
        {state}
        <div className="view-actions">{actions}</div>
      </header>
      <div className="view-body">{children}</div>
    </PageSection>
  );
}

// Part is a card within a view.
export function Part({ title, children, actions }: { title: string; children: ReactNode; actions?: ReactNode }) {
  return (
    <Card component="section" isCompact>
      <CardTitle component="h2" className="part-head">
        {title} {actions}
      </CardTitle>
      <CardBody>{children}</CardBody>
    </Card>
  );
}
