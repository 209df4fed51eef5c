// What every view of the page shares.
import { createContext, use, useEffect, useSyncExternalStore } from 'react';
import type { Role, Session, Status } from './api/types';
import type { Live, View } from './live';
import { may } from './model/rights';

interface Shared {
  session: Session;
  live: Live;
}

export const SharedContext = createContext<Shared | null>(null);

export function useShared(): Shared {
  const shared = use(SharedContext);
  if (!shared) throw new Error('nobody has signed in');
  return shared;
}

export function useView(): View {
  const { live } = useShared();
  return useSyncExternalStore(live.subscribe, live.snapshot);
}

// useStatus returns the latest status; views are shown only when there is one.
export function useStatus(): Status {
  const { status } = useView();
  if (!status) throw new Error('there is no status yet');
  return status;
}

export function useMay(role: Role): boolean {
  return may(useShared().session.roles, role);
}

// useConsoles returns what opens the same view at the console of a node, if it has
// one.
export function useConsoles(): (node: string) => (() => void) | undefined {
  const { session, live } = useShared();
  return (node) => {
    const there = session.elsewhere?.find((e) => e.node === node);
    return there && (() => live.move(there));
  };
}

// useHold keeps the page here while what is on it would be lost.
export function useHold(on: boolean): void {
  const { live } = useShared();
  useEffect(() => {
    if (!on) return;
    const release = live.hold();
    const ask = (e: BeforeUnloadEvent) => e.preventDefault();
    addEventListener('beforeunload', ask);
    return () => {
      release();
      removeEventListener('beforeunload', ask);
    };
  }, [on, live]);
}
