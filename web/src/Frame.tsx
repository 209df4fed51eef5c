import {
  Alert,
  Button,
  Label,
  Masthead,
  MastheadBrand,
  MastheadContent,
  MastheadMain,
  MastheadToggle,
  Nav,
  NavItem,
  NavList,
  Page,
  PageSection,
  PageSidebar,
  PageSidebarBody,
  PageToggleButton,
  SkipToContent,
} from '@patternfly/react-core';
import { lazy, Suspense, useEffect, useState } from 'react';
import { Link, Route, Routes, useLocation } from 'react-router';
import { own } from './api/client';
import type { Role } from './api/types';
import { useShared, useView } from './context';
import type { Key } from './i18n/en';
import { useText } from './i18n/context';
import { clock } from './model/format';
import { may } from './model/rights';
import { Boundary } from './parts/Boundary';
import { Dialogs } from './parts/Dialogs';
import { Loading } from './parts/Loading';
import { Overview } from './pages/Overview';
import { toggleTheme } from './theme';

const Groups = lazy(() => import('./pages/Groups'));
const Group = lazy(() => import('./pages/Group'));
const Nodes = lazy(() => import('./pages/Nodes'));
const Node = lazy(() => import('./pages/Node'));
const Monitors = lazy(() => import('./pages/Monitors'));
const Mirrors = lazy(() => import('./pages/Mirrors'));
const Events = lazy(() => import('./pages/Events'));
const Report = lazy(() => import('./pages/Report'));
const WhatIf = lazy(() => import('./pages/WhatIf'));
const Config = lazy(() => import('./pages/Config'));
const Links = lazy(() => import('./pages/Links'));
const Users = lazy(() => import('./pages/Users'));
const Setup = lazy(() => import('./pages/Setup'));

const views: readonly [path: string, name: Key, need: Role][] = [
  ['/', 'nav.overview', 'read'],
  ['/groups', 'nav.groups', 'read'],
  ['/nodes', 'nav.nodes', 'read'],
  ['/monitors', 'nav.monitors', 'read'],
  ['/mirrors', 'nav.mirrors', 'read'],
  ['/events', 'nav.events', 'read'],
  ['/whatif', 'nav.whatif', 'read'],
  ['/config', 'nav.config', 'configure'],
  ['/links', 'nav.links', 'read'],
  ['/users', 'nav.users', 'read'],
];

// Frame is what is around every view: the head, the list of views, and what is
// said when the node is gone.
export default function Frame({ signedOut }: { signedOut: (why: string) => void }) {
  const { t } = useText();
  const { session } = useShared();
  const { status } = useView();
  const path = useLocation().pathname;
  const section = '/' + (path.split('/')[1] ?? '');
  const here = section === '/report' ? '/events' : section;
  const [wide, setWide] = useState(() => matchMedia('(min-width: 75rem)').matches);

  useEffect(() => {
    document.title = `${session.cluster} · Tasuki`;
  }, [session.cluster]);

  const sidebar = (
    <PageSidebar isSidebarOpen={wide}>
      <PageSidebarBody>
        <Nav aria-label={t('nav.label')}>
          <NavList>
            {views
              .filter(([, , need]) => may(session.roles, need))
              .map(([to, name]) => (
                <NavItem key={to} isActive={to === here}>
                  <Link to={to} onClick={() => matchMedia('(min-width: 75rem)').matches || setWide(false)}>
                    {t(name)}
                  </Link>
                </NavItem>
              ))}
          </NavList>
        </Nav>
      </PageSidebarBody>
    </PageSidebar>
  );

  return (
    <Page
      masthead={<Head toggle={() => setWide(!wide)} open={wide} signedOut={signedOut} />}
      sidebar={sidebar}
      skipToContent={<SkipToContent href="#main">{t('app.skip')}</SkipToContent>}
      mainContainerId="main"
      mainTabIndex={0}
    >
      <Gone />
      <Dialogs>
        <Boundary key={path}>
          {status ? (
            <Suspense fallback={<Loading />}>
              <Routes>
                <Route path="/" element={<Overview />} />
                <Route path="/groups" element={<Groups />} />
                <Route path="/groups/:name" element={<Group />} />
                <Route path="/nodes" element={<Nodes />} />
                <Route path="/nodes/:name" element={<Node />} />
                <Route path="/monitors" element={<Monitors />} />
                <Route path="/mirrors" element={<Mirrors />} />
                <Route path="/events" element={<Events />} />
                <Route path="/report/:node/:number" element={<Report />} />
                <Route path="/whatif" element={<WhatIf />} />
                <Route path="/config" element={<Config />} />
                <Route path="/setup" element={<Setup />} />
                <Route path="/links" element={<Links />} />
                <Route path="/users" element={<Users />} />
                <Route path="*" element={<PageSection>{t('common.notfound')}</PageSection>} />
              </Routes>
            </Suspense>
          ) : (
            <Loading />
          )}
        </Boundary>
      </Dialogs>
    </Page>
  );
}

function Head({ toggle, open, signedOut }: { toggle: () => void; open: boolean; signedOut: (why: string) => void }) {
  const { t, language, change } = useText();
  const { session } = useShared();
  const { connection } = useView();
  const signOut = () => void own('DELETE', '/session').finally(() => signedOut(''));
  return (
    <Masthead>
      <MastheadMain>
        <MastheadToggle>
          <PageToggleButton
            isHamburgerButton
            aria-label={t('nav.toggle')}
            isSidebarOpen={open}
            onSidebarToggle={toggle}
          />
        </MastheadToggle>
        <MastheadBrand>
          <Link to="/" className="brand">
            <img src="/favicon.svg" alt="" width="28" height="28" /> <span>{session.cluster}</span>
          </Link>
        </MastheadBrand>
      </MastheadMain>
      <MastheadContent>
        <div className="head">
          <Label color={connection === 'live' ? 'green' : connection === 'gone' ? 'red' : 'orange'} isCompact>
            {t(connection === 'live' ? 'live.on' : 'live.waiting', { node: session.node })}
          </Label>
          <Button variant="plain" aria-label={t('menu.theme')} title={t('menu.theme')} onClick={toggleTheme}>
            <span aria-hidden="true">◐</span>
          </Button>
          <Button
            variant="plain"
            lang={language === 'en' ? 'ja' : 'en'}
            onClick={() => change(language === 'en' ? 'ja' : 'en')}
          >
            {t('menu.language')}
          </Button>
          <Button variant="secondary" size="sm" onClick={signOut} title={t('menu.user', { name: session.user })}>
            {t('menu.signout')} <span className="wide-only">({session.user})</span>
          </Button>
        </div>
      </MastheadContent>
    </Masthead>
  );
}

// Gone says that the node does not answer, and where to go on by hand: where
// nothing on the page would be lost, it goes by itself.
function Gone() {
  const { t } = useText();
  const { session, live } = useShared();
  const { connection, other, at } = useView();
  if (connection !== 'gone') return null;
  const elsewhere = other ? [other] : (session.elsewhere ?? []);
  return (
    <PageSection>
      <Alert isInline variant="danger" title={t('gone.title', { node: session.node })} aria-live="assertive">
        {other ? (
          <p>{t('gone.hold', { other: other.node })}</p>
        ) : (
          <>
            <p>{t('gone.looking', { time: clock(new Date(at).toISOString()) })}</p>
            <p>{t('gone.nobody')}</p>
          </>
        )}
        {elsewhere.map((e) => (
          <Button key={e.origin} variant="link" onClick={() => live.move(e)}>
            {t('gone.continue', { other: e.node })}
          </Button>
        ))}
      </Alert>
    </PageSection>
  );
}
