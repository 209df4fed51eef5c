// The answers of the set-up wizard, as they are typed, and as the daemon takes them.
import type { components } from '../api/schema';

export type Answers = components['schemas']['Answers'];
export type AnswerProblem = components['schemas']['AnswerProblem'];
export type Third = 'none' | 'ping' | 'fence' | 'witness' | 'node';

export const steps = ['nodes', 'third', 'group', 'file'] as const;
export type Step = (typeof steps)[number];

export interface Machine {
  name: string;
  addresses: string[]; // one for each network
}

export interface Fence {
  plug: string;
  options: Record<string, string>;
}

export interface Form {
  cluster: string;
  nodes: Machine[];
  kind: Third | '';
  third: Machine;
  targets: string;
  agent: string;
  fences: Fence[]; // one for each node
  grouped: boolean;
  group: string;
  address: { on: boolean; address: string; prefix: string; device: string };
  mirror: { on: boolean; data: string; meta: string; mount: string; fs: string };
  program: { on: boolean; start: string; stop: string };
}

export const networksOf = (f: Form): number => f.nodes[0]?.addresses.length ?? 1;

// thirds are the third things that make sense for so many nodes.
export function thirds(nodes: number): readonly Third[] {
  if (nodes < 2) return [];
  return nodes === 2 ? ['witness', 'node', 'fence', 'ping', 'none'] : ['none', 'witness', 'node', 'fence'];
}

const sized = (list: readonly string[], n: number) => Array.from({ length: n }, (_, i) => list[i] ?? '');
const noFence: Fence = { plug: '', options: {} };

// formOf is what the wizard begins with: what the file in force says, and a second
// node to be named where there is one only.
export function formOf(a: Answers): Form {
  const known = a.nodes ?? [];
  const networks = Math.max(1, ...known.map((n) => (n.addresses ?? []).length));
  const machine = (n?: { name?: string; addresses?: readonly string[] | null }): Machine => ({
    name: n?.name ?? '',
    addresses: sized(n?.addresses ?? [], networks),
  });
  const nodes = known.map(machine);
  while (nodes.length < 2) nodes.push(machine());
  const kind = (a.third?.kind ?? '') as Third | '';
  const fences = a.third?.fences ?? [];
  const g = a.group;
  return {
    cluster: a.cluster ?? '',
    nodes,
    kind: known.length < 2 ? '' : kind,
    third: machine(a.third?.node ?? undefined),
    targets: (a.third?.targets ?? []).join(', '),
    agent: fences[0]?.agent ?? 'fence_ipmilan',
    fences: nodes.map((n) => {
      const is = fences.find((f) => f.node === n.name);
      return is ? { plug: is.plug ?? '', options: is.options ?? {} } : noFence;
    }),
    grouped: g !== undefined,
    group: g?.name ?? a.cluster ?? '',
    address: {
      on: g ? g.address !== undefined : true,
      address: g?.address?.address ?? '',
      prefix: g?.address?.prefix ? String(g.address.prefix) : '',
      device: g?.address?.device ?? '',
    },
    mirror: {
      on: g?.mirror !== undefined,
      data: g?.mirror?.data ?? '',
      meta: g?.mirror?.meta ?? '',
      mount: g?.mirror?.mount ?? '',
      fs: g?.mirror?.fs ?? 'ext4',
    },
    program: { on: g?.program !== undefined, start: g?.program?.start ?? '', stop: g?.program?.stop ?? '' },
  };
}

// answersOf is what the daemon is asked. A node that nothing was typed for is none.
export function answersOf(f: Form): Answers {
  const typed = (m: Machine) => ({ name: m.name.trim(), addresses: m.addresses.map((a) => a.trim()) });
  const named = f.nodes.map((n, i) => ({ n: typed(n), fence: f.fences[i] ?? noFence }));
  const nodes = named.filter(({ n }, i) => i === 0 || n.name !== '' || n.addresses.some((a) => a !== ''));
  const kind = nodes.length < 2 ? '' : f.kind;
  const third: Answers['third'] = kind === '' ? {} : { kind };
  if (kind === 'witness' || kind === 'node') third.node = typed(f.third);
  if (kind === 'ping')
    third.targets = f.targets
      .split(',')
      .map((a) => a.trim())
      .filter((a) => a !== '');
  if (kind === 'fence')
    third.fences = nodes.map(({ n, fence }) => ({
      node: n.name,
      agent: f.agent.trim(),
      plug: fence.plug.trim(),
      options: Object.fromEntries(Object.entries(fence.options).filter(([, v]) => v.trim() !== '')),
    }));
  const out: Answers = { cluster: f.cluster, nodes: nodes.map(({ n }) => n), third };
  if (f.grouped) {
    out.group = { name: f.group.trim() };
    if (f.address.on)
      out.group.address = {
        address: f.address.address.trim(),
        prefix: Number.parseInt(f.address.prefix, 10) || 0,
        device: f.address.device.trim(),
      };
    if (f.mirror.on)
      out.group.mirror = {
        data: f.mirror.data.trim(),
        meta: f.mirror.meta.trim(),
        mount: f.mirror.mount.trim(),
        fs: f.mirror.fs,
      };
    if (f.program.on) out.group.program = { start: f.program.start.trim(), stop: f.program.stop.trim() };
  }
  return out;
}

// stepOf is the step in which an answer is given.
export function stepOf(field: string): Step {
  if (/^(cluster|nodes)/.test(field)) return 'nodes';
  if (field.startsWith('third')) return 'third';
  return field.startsWith('group') ? 'group' : 'file';
}

// withNetworks gives every machine so many addresses.
export function withNetworks(f: Form, n: number): Form {
  const resized = (m: Machine) => ({ ...m, addresses: sized(m.addresses, n) });
  return { ...f, nodes: f.nodes.map(resized), third: resized(f.third) };
}

export function withNode(f: Form): Form {
  const n = { name: '', addresses: sized([], networksOf(f)) };
  return keepKind({ ...f, nodes: [...f.nodes, n], fences: [...f.fences, { ...noFence, options: shared(f) }] });
}

export function withoutNode(f: Form, i: number): Form {
  const gone = (_: unknown, k: number) => k !== i;
  return keepKind({ ...f, nodes: f.nodes.filter(gone), fences: f.fences.filter(gone) });
}

// keepKind drops a third thing that makes no sense any more.
const keepKind = (f: Form): Form => (f.kind === '' || thirds(f.nodes.length).includes(f.kind) ? f : { ...f, kind: '' });

// shared are the options that all devices have.
export function shared(f: Form): Record<string, string> {
  return Object.fromEntries(Object.entries(f.fences[0]?.options ?? {}).filter(([name]) => name !== 'ip'));
}

export const sharedOption = (f: Form, name: string, value: string): Form => ({
  ...f,
  fences: f.fences.map((x) => ({ ...x, options: { ...x.options, [name]: value } })),
});
