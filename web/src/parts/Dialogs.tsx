import {
  Alert,
  Button,
  Checkbox,
  Form,
  FormGroup,
  FormSelect,
  FormSelectOption,
  Modal,
  ModalBody,
  ModalFooter,
  ModalHeader,
  TextInput,
} from '@patternfly/react-core';
import { createContext, use, useCallback, useState, type ReactNode } from 'react';
import { api, answer, asProblem, type Problem } from '../api/client';
import type { Begun, Role } from '../api/types';
import { useShared } from '../context';
import { useText } from '../i18n/context';
import { may } from '../model/rights';
import { useToast } from './Toasts';

// Given is what somebody filled in before an action.
export interface Given {
  choice: string;
  reason: string;
  hours: number;
  check: boolean;
  typed: string;
}

export type Action = Deed | Way;

// Way leads to where something can be done.
export interface Way {
  label: string;
  need: Role;
  go: () => void;
  danger?: boolean;
}

// Deed is something that can be done. What it asks for first is in it; without any
// of that it is done at once.
export interface Deed {
  label: string;
  need: Role;
  run: (given: Given) => Promise<Begun>;
  sure?: string; // a question
  danger?: boolean;
  choose?: { label: string; options: readonly (readonly [value: string, label: string])[] };
  reason?: 'needed' | 'wanted';
  hours?: boolean;
  check?: string; // the label of a box
  type?: { label: string; text: string }; // must be typed to confirm
}

const Context = createContext<((a: Action) => void) | null>(null);

function useDo() {
  const doIt = use(Context);
  if (!doIt) throw new Error('nothing does actions');
  return doIt;
}

const asks = (a: Deed) =>
  a.sure !== undefined || a.choose !== undefined || a.reason !== undefined || a.type !== undefined;

// Dialogs carries actions out: it asks what is to be known, says what has begun,
// and how it ended.
export function Dialogs({ children }: { children: ReactNode }) {
  const { t } = useText();
  const say = useToast();
  const [open, setOpen] = useState<Deed | null>(null);

  const begin = useCallback(
    async (a: Deed, given: Given) => {
      const begun = await a.run(given);
      say({ variant: 'info', title: a.label, text: begun.text });
      if (begun.plan) void followPlan(begun.plan).then(say, () => undefined);
    },
    [say],
  );
  const start = useCallback(
    (a: Action) => {
      if ('go' in a) {
        a.go();
        return;
      }
      if (asks(a)) {
        setOpen(a);
        return;
      }
      begin(a, nothing).catch((e: unknown) => {
        const p = asProblem(e);
        say({ variant: 'danger', title: t('common.failed', { text: p.message }), text: p.hint });
      });
    },
    [begin, say, t],
  );
  return (
    <Context value={start}>
      {children}
      {open && <Ask action={open} close={() => setOpen(null)} begin={begin} />}
    </Context>
  );
}

const nothing: Given = { choice: '', reason: '', hours: 8, check: false, typed: '' };

async function followPlan(id: string): Promise<{ variant: 'success' | 'danger'; title: string; text: string }> {
  for (;;) {
    const plan = await answer(api.GET('/v1/plans/{id}', { params: { path: { id }, query: { wait: '30s' } } }));
    if (plan.ended) return { variant: plan.ok ? 'success' : 'danger', title: plan.group, text: plan.text };
  }
}

function Ask({
  action: a,
  close,
  begin,
}: {
  action: Deed;
  close: () => void;
  begin: (a: Deed, g: Given) => Promise<void>;
}) {
  const { t } = useText();
  const [given, setGiven] = useState<Given>({ ...nothing, choice: a.choose?.options[0]?.[0] ?? '' });
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  const set = (part: Partial<Given>) => setGiven({ ...given, ...part });
  const ready = (a.reason !== 'needed' || given.reason.trim() !== '') && (!a.type || given.typed === a.type.text);
  const submit = () => {
    setBusy(true);
    begin(a, given).then(close, (e: unknown) => {
      setBusy(false);
      setProblem(asProblem(e));
    });
  };
  return (
    <Modal isOpen variant="small" onClose={close} aria-labelledby="ask-title">
      <ModalHeader
        title={a.label}
        labelId="ask-title"
        {...(a.danger ? { titleIconVariant: 'warning' as const } : {})}
      />
      <ModalBody>
        <Form
          id="ask"
          onSubmit={(e) => {
            e.preventDefault();
            if (ready && !busy) submit();
          }}
        >
          {a.sure && <p>{a.sure}</p>}
          {a.choose && (
            <FormGroup label={a.choose.label} fieldId="ask-choice">
              <FormSelect id="ask-choice" value={given.choice} onChange={(_, choice) => set({ choice })}>
                {a.choose.options.map(([value, label]) => (
                  <FormSelectOption key={value} value={value} label={label} />
                ))}
              </FormSelect>
            </FormGroup>
          )}
          {a.reason && (
            <FormGroup label={t('common.reason')} fieldId="ask-reason" isRequired={a.reason === 'needed'}>
              <TextInput
                id="ask-reason"
                value={given.reason}
                onChange={(_, reason) => set({ reason })}
                isRequired={a.reason === 'needed'}
              />
            </FormGroup>
          )}
          {a.hours && (
            <FormGroup label={t('maintenance.for')} fieldId="ask-hours">
              <FormSelect id="ask-hours" value={given.hours} onChange={(_, h) => set({ hours: Number(h) })}>
                {[1, 2, 4, 8, 24, 72].map((n) => (
                  <FormSelectOption key={n} value={n} label={t('maintenance.hours', { n })} />
                ))}
              </FormSelect>
            </FormGroup>
          )}
          {a.check && (
            <Checkbox id="ask-check" label={a.check} isChecked={given.check} onChange={(_, check) => set({ check })} />
          )}
          {a.type && (
            <FormGroup label={a.type.label} fieldId="ask-type" isRequired>
              <TextInput
                id="ask-type"
                value={given.typed}
                onChange={(_, typed) => set({ typed })}
                autoComplete="off"
                isRequired
              />
            </FormGroup>
          )}
          {problem && (
            <Alert isInline variant="danger" title={problem.message}>
              {problem.hint && t('common.hint', { hint: problem.hint })}
            </Alert>
          )}
        </Form>
      </ModalBody>
      <ModalFooter>
        <Button
          type="submit"
          form="ask"
          variant={a.danger ? 'danger' : 'primary'}
          isDisabled={!ready || busy}
          isLoading={busy}
        >
          {a.label}
        </Button>
        <Button variant="link" onClick={close}>
          {t('common.cancel')}
        </Button>
      </ModalFooter>
    </Modal>
  );
}

// Actions shows what can be done with something. What the user has no role for is
// shown, so that he knows that it is there, and cannot be pressed.
export function Actions({ of, list, small }: { of: string; list: readonly Action[]; small?: boolean }) {
  const { t } = useText();
  const { session } = useShared();
  const start = useDo();
  return (
    <div className="actions" role="group" aria-label={t('common.actionsOf', { name: of })}>
      {list.map((a) => {
        const allowed = may(session.roles, a.need);
        return (
          <Button
            key={a.label}
            size="sm"
            variant={small ? 'link' : a.danger ? 'danger' : 'secondary'}
            isInline={small}
            isDanger={small && a.danger}
            isAriaDisabled={!allowed}
            {...(allowed ? {} : { title: t('common.noright', { role: a.need }) })}
            onClick={() => start(a)}
          >
            {a.label}
          </Button>
        );
      })}
    </div>
  );
}
