// The questions of the set-up wizard.
import { Button, Checkbox, FormGroup, FormSelect, FormSelectOption, Radio, TextInput } from '@patternfly/react-core';
import { useText } from '../i18n/context';
import {
  networksOf,
  sharedOption,
  thirds,
  withNetworks,
  withNode,
  withoutNode,
  type AnswerProblem,
  type Form,
  type Machine,
} from '../model/setup';

export interface FormProps {
  form: Form;
  change: (f: Form) => void;
  problems: readonly AnswerProblem[]; // that are shown
}

interface TextProps {
  id: string; // the answer, as the daemon names it
  label: string;
  value: string;
  change: (v: string) => void;
  problems: readonly AnswerProblem[];
  numeric?: boolean;
}

function Text({ id, label, value, change, problems, numeric }: TextProps) {
  const bad = problems.filter((p) => p.field === id);
  return (
    <FormGroup label={label} fieldId={id}>
      <TextInput
        id={id}
        value={value}
        onChange={(_, v) => change(v)}
        validated={bad.length > 0 ? 'error' : 'default'}
        autoComplete="off"
        autoCapitalize="off"
        spellCheck={false}
        {...(numeric ? { inputMode: 'numeric' as const } : {})}
        {...(bad.length > 0 ? { 'aria-describedby': `${id}-why` } : {})}
      />
      {bad.length > 0 && (
        <p id={`${id}-why`} className="why">
          {bad.map((p) => [p.what, p.hint].filter(Boolean).join('; ')).join(' · ')}
        </p>
      )}
    </FormGroup>
  );
}

function MachineForm({
  field,
  of,
  change,
  problems,
}: {
  field: string;
  of: Machine;
  change: (m: Machine) => void;
  problems: readonly AnswerProblem[];
}) {
  const { t } = useText();
  return (
    <div className="answers">
      <Text
        id={`${field}.name`}
        label={t('setup.node.name')}
        value={of.name}
        change={(name) => change({ ...of, name })}
        problems={problems}
      />
      {of.addresses.map((a, i) => (
        <Text
          key={i}
          id={`${field}.addresses[${i}]`}
          label={t('setup.node.address', { n: i + 1 })}
          value={a}
          change={(v) => change({ ...of, addresses: of.addresses.map((x, k) => (k === i ? v : x)) })}
          problems={problems}
        />
      ))}
    </div>
  );
}

export function NodesForm({ form, change, problems }: FormProps) {
  const { t } = useText();
  const networks = networksOf(form);
  const set = (i: number, m: Machine) => change({ ...form, nodes: form.nodes.map((n, k) => (k === i ? m : n)) });
  return (
    <>
      <p>{t('setup.nodes.text')}</p>
      {form.nodes.map((n, i) => (
        <fieldset key={i} className="answer">
          <legend>{t('setup.node', { n: i + 1 })}</legend>
          <MachineForm field={`nodes[${i}]`} of={n} change={(m) => set(i, m)} problems={problems} />
          {i > 0 && (
            <Button variant="link" isInline size="sm" onClick={() => change(withoutNode(form, i))}>
              {t('setup.node.remove', { n: i + 1 })}
            </Button>
          )}
        </fieldset>
      ))}
      <div className="actions">
        <Button
          variant="secondary"
          size="sm"
          onClick={() => change(withNode(form))}
          isDisabled={form.nodes.length >= 31}
        >
          {t('setup.node.add')}
        </Button>
        <Button
          variant="secondary"
          size="sm"
          onClick={() => change(withNetworks(form, networks + 1))}
          isDisabled={networks >= 8}
        >
          {t('setup.network.add')}
        </Button>
        {networks > 1 && (
          <Button variant="secondary" size="sm" onClick={() => change(withNetworks(form, networks - 1))}>
            {t('setup.network.remove', { n: networks })}
          </Button>
        )}
      </div>
    </>
  );
}

export function ThirdForm({ form, change, problems, nodes }: FormProps & { nodes: readonly string[] }) {
  const { t } = useText();
  const kinds = thirds(nodes.length);
  const chosen = form.kind === '' && nodes.length > 2 ? 'none' : form.kind;
  if (kinds.length === 0) return <p>{t('setup.third.text.one')}</p>;
  return (
    <>
      <fieldset className="answer">
        <legend>{t('setup.step.third')}</legend>
        <p>{t(nodes.length === 2 ? 'setup.third.text' : 'setup.third.text.many')}</p>
        {kinds.map((k) => (
          <Radio
            key={k}
            id={k === kinds[0] ? 'third.kind' : `third.kind.${k}`}
            name="third"
            label={t(`setup.third.${k}`)}
            description={t(k === 'none' && nodes.length > 2 ? 'setup.third.majority.text' : `setup.third.${k}.text`)}
            isChecked={chosen === k}
            onChange={() => change({ ...form, kind: k })}
          />
        ))}
      </fieldset>
      {(chosen === 'witness' || chosen === 'node') && (
        <fieldset className="answer">
          <legend>{t(`setup.third.${chosen}`)}</legend>
          <MachineForm
            field="third.node"
            of={form.third}
            change={(third) => change({ ...form, third })}
            problems={problems}
          />
        </fieldset>
      )}
      {chosen === 'ping' && (
        <Text
          id="third.targets"
          label={t('setup.targets')}
          value={form.targets}
          change={(targets) => change({ ...form, targets })}
          problems={problems.map((p) => ({ ...p, field: p.field.replace(/\[\d+\]$/, '') }))}
        />
      )}
      {chosen === 'fence' && <FenceForm form={form} change={change} problems={problems} nodes={nodes} />}
    </>
  );
}

function FenceForm({ form, change, problems, nodes }: FormProps & { nodes: readonly string[] }) {
  const { t } = useText();
  const set = (i: number, part: { plug?: string; ip?: string }) =>
    change({
      ...form,
      fences: form.fences.map((f, k) =>
        k === i
          ? { plug: part.plug ?? f.plug, options: part.ip === undefined ? f.options : { ...f.options, ip: part.ip } }
          : f,
      ),
    });
  const optional = (label: string) => t('setup.optional', { label });
  return (
    <fieldset className="answer">
      <legend>{t('setup.third.fence')}</legend>
      <div className="answers">
        <Text
          id="third.fences[0].agent"
          label={t('setup.fence.agent')}
          value={form.agent}
          change={(agent) => change({ ...form, agent })}
          problems={problems}
        />
        <Text
          id="third.fences[0].options.username"
          label={optional(t('setup.fence.username'))}
          value={form.fences[0]?.options['username'] ?? ''}
          change={(v) => change(sharedOption(form, 'username', v))}
          problems={problems}
        />
        <Text
          id="third.fences[0].options.password_script"
          label={optional(t('setup.fence.script'))}
          value={form.fences[0]?.options['password_script'] ?? ''}
          change={(v) => change(sharedOption(form, 'password_script', v))}
          problems={problems}
        />
      </div>
      {nodes.map((node, i) => (
        <div key={i} className="answers">
          <Text
            id={`third.fences[${i}].options.ip`}
            label={t('setup.fence.ip', { node })}
            value={form.fences[i]?.options['ip'] ?? ''}
            change={(ip) => set(i, { ip })}
            problems={problems}
          />
          <Text
            id={`third.fences[${i}].plug`}
            label={optional(t('setup.fence.plug', { node }))}
            value={form.fences[i]?.plug ?? ''}
            change={(plug) => set(i, { plug })}
            problems={problems}
          />
        </div>
      ))}
    </fieldset>
  );
}

export function GroupForm({ form, change, problems }: FormProps) {
  const { t } = useText();
  const optional = (label: string) => t('setup.optional', { label });
  const address = (part: Partial<Form['address']>) => change({ ...form, address: { ...form.address, ...part } });
  const mirror = (part: Partial<Form['mirror']>) => change({ ...form, mirror: { ...form.mirror, ...part } });
  const program = (part: Partial<Form['program']>) => change({ ...form, program: { ...form.program, ...part } });
  const field = (id: string, label: string, value: string, set: (v: string) => void, numeric = false) => (
    <Text id={id} label={label} value={value} change={set} problems={problems} numeric={numeric} />
  );
  return (
    <>
      <p>{t('setup.group.text')}</p>
      <Checkbox
        id="group"
        label={t('setup.group.on')}
        isChecked={form.grouped}
        onChange={(_, grouped) => change({ ...form, grouped })}
      />
      {form.grouped && (
        <>
          {field('group.name', t('setup.group.name'), form.group, (group) => change({ ...form, group }))}
          <fieldset className="answer">
            <legend>{t('setup.address')}</legend>
            <Checkbox
              id="group.address"
              label={t('setup.address.text')}
              isChecked={form.address.on}
              onChange={(_, on) => address({ on })}
            />
            {form.address.on && (
              <div className="answers">
                {field('group.address.address', t('setup.address.address'), form.address.address, (v) =>
                  address({ address: v }),
                )}
                {field(
                  'group.address.prefix',
                  optional(t('setup.address.prefix')),
                  form.address.prefix,
                  (v) => address({ prefix: v }),
                  true,
                )}
                {field('group.address.device', optional(t('setup.address.device')), form.address.device, (v) =>
                  address({ device: v }),
                )}
              </div>
            )}
          </fieldset>
          <fieldset className="answer">
            <legend>{t('setup.mirror')}</legend>
            <Checkbox
              id="group.mirror"
              label={t('setup.mirror.text')}
              isChecked={form.mirror.on}
              onChange={(_, on) => mirror({ on })}
            />
            {form.mirror.on && (
              <div className="answers">
                {field('group.mirror.data', t('setup.mirror.data'), form.mirror.data, (data) => mirror({ data }))}
                {field('group.mirror.meta', t('setup.mirror.meta'), form.mirror.meta, (meta) => mirror({ meta }))}
                {field('group.mirror.mount', t('setup.mirror.mount'), form.mirror.mount, (mount) => mirror({ mount }))}
                <FormGroup label={t('setup.mirror.fs')} fieldId="group.mirror.fs">
                  <FormSelect id="group.mirror.fs" value={form.mirror.fs} onChange={(_, fs) => mirror({ fs })}>
                    {['ext4', 'ext3', 'xfs'].map((fs) => (
                      <FormSelectOption key={fs} value={fs} label={fs} />
                    ))}
                  </FormSelect>
                </FormGroup>
              </div>
            )}
          </fieldset>
          <fieldset className="answer">
            <legend>{t('setup.program')}</legend>
            <Checkbox
              id="group.program"
              label={t('setup.program.text')}
              isChecked={form.program.on}
              onChange={(_, on) => program({ on })}
            />
            {form.program.on && (
              <div className="answers">
                {field('group.program.start', t('setup.program.start'), form.program.start, (start) =>
                  program({ start }),
                )}
                {field('group.program.stop', optional(t('setup.program.stop')), form.program.stop, (stop) =>
                  program({ stop }),
                )}
              </div>
            )}
          </fieldset>
        </>
      )}
    </>
  );
}
