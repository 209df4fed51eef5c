import { Alert, AlertActionCloseButton, AlertGroup } from '@patternfly/react-core';
import { createContext, use, useCallback, useMemo, useRef, useState, type ReactNode } from 'react';

interface Toast {
  variant: 'success' | 'info' | 'danger';
  title: string;
  text?: string;
}

const Context = createContext<((toast: Toast) => void) | null>(null);

// useToast returns what says something in passing. A failure stays until it is
// closed.
export function useToast() {
  const say = use(Context);
  if (!say) throw new Error('nothing shows toasts');
  return say;
}

const most = 3;

export function Toasts({ children }: { children: ReactNode }) {
  const [shown, setShown] = useState<(Toast & { id: number })[]>([]);
  const next = useRef(0);
  const close = useCallback((id: number) => setShown((all) => all.filter((x) => x.id !== id)), []);
  const say = useCallback((toast: Toast) => {
    const id = next.current++;
    setShown((all) => [...all, { ...toast, id }].slice(-most));
  }, []);
  const list = useMemo(
    () => (
      <AlertGroup isToast isLiveRegion>
        {shown.map((x) => (
          <Alert
            key={x.id}
            variant={x.variant}
            title={x.title}
            timeout={x.variant === 'danger' ? false : x.variant === 'info' ? 2500 : 5000}
            onTimeout={() => close(x.id)}
            actionClose={<AlertActionCloseButton onClose={() => close(x.id)} />}
          >
            {x.text}
          </Alert>
        ))}
      </AlertGroup>
    ),
    [shown, close],
  );
  return (
    <Context value={say}>
      {children}
      {list}
    </Context>
  );
}
