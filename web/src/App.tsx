import { Alert, AlertActionCloseButton } from '@patternfly/react-core';
import { lazy, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useLocation, useNavigate } from 'react-router';
import { asProblem, own } from './api/client';
import type { Session } from './api/types';
import { SharedContext } from './context';
import { useText } from './i18n/context';
import { Live } from './live';
import { move, ticketMark } from './move';
import { Loading } from './parts/Loading';
import { Toasts } from './parts/Toasts';
import { SignIn } from './pages/SignIn';

const Frame = lazy(() => import('./Frame'));

type State = { session: Session; moved: boolean } | 'asking' | { signIn: string };

// open returns the session that there is, if any, or the one that the ticket of
// another node begins.
async function open(hash: string): Promise<Session | null> {
  if (!hash.startsWith(ticketMark)) return own<Session | null>('GET', '/session');
  return own<Session>('POST', '/session/handover', { ticket: hash.slice(ticketMark.length) });
}

// App shows the page to whoever has signed in, and asks the others to.
export function App() {
  const { t } = useText();
  const [state, setState] = useState<State>('asking');
  const location = useLocation();
  const navigate = useNavigate();
  const asked = useRef(false);

  useEffect(() => {
    if (asked.current) return; // a ticket is good once
    asked.current = true;
    const moved = location.hash.startsWith(ticketMark);
    if (moved) void navigate({ pathname: location.pathname, search: location.search }, { replace: true });
    open(location.hash).then(
      (session) => setState(session ? { session, moved } : { signIn: '' }),
      (e: unknown) => setState({ signIn: moved ? asProblem(e).message : '' }),
    );
  }, [location, navigate]);

  const signedOut = useCallback((why: string) => setState({ signIn: why }), []);
  if (state === 'asking') return <Loading />;
  if ('signIn' in state) return <SignIn why={state.signIn} done={(session) => setState({ session, moved: false })} />;
  return (
    <Toasts>
      {state.moved && (
        <Alert
          isInline
          variant="info"
          title={t('moved.title', { node: state.session.node })}
          actionClose={<AlertActionCloseButton onClose={() => setState({ session: state.session, moved: false })} />}
        >
          {t('moved.text')}
        </Alert>
      )}
      <SignedIn session={state.session} signedOut={signedOut} />
    </Toasts>
  );
}

// SignedIn follows the cluster for as long as the session lasts.
function SignedIn({ session, signedOut }: { session: Session; signedOut: (why: string) => void }) {
  const live = useMemo(
    () => new Live({ signedOut, elsewhere: () => session.elsewhere ?? [], move }),
    [session, signedOut],
  );
  useEffect(() => {
    live.start();
    return () => live.stop();
  }, [live]);
  const shared = useMemo(() => ({ session, live }), [session, live]);
  return (
    <SharedContext value={shared}>
      <Frame signedOut={signedOut} />
    </SharedContext>
  );
}
