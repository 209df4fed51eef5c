// Where the things of the picture stand. Nodes stand in rows; above each row runs
// one line for each network, and every node hangs on each of them.
import type { Status } from '../api/types';

export interface Box {
  x: number;
  y: number;
  w: number;
  h: number;
}

export interface NodeBox extends Box {
  name: string;
  state: string;
  self: boolean;
  leader: boolean;
  witness: boolean;
  groups: { name: string; phase: string }[]; // that fit
  more: number; // groups that do not
  bad: number; // monitors
  watched: number; // monitors
  wires: { network: number; x: number; from: number; up: boolean; address: string }[];
}

export interface Bus {
  network: number; // from 1
  y: number;
  x1: number;
  x2: number;
  lost: number; // directions that are
}

export interface MirrorWire {
  name: string;
  path: string; // of the SVG
  x: number; // of the label
  y: number;
  state: 'ok' | 'busy' | 'bad';
  text: string;
}

export interface Topology {
  width: number;
  height: number;
  nodes: NodeBox[];
  buses: Bus[];
  mirrors: MirrorWire[];
}

const gap = 24;
const over = 16; // above the first network, for its name
const bus = 20; // between two networks
const title = 46; // of a node
const chip = 24; // of a group
const mirrorRoom = 30;

// topology lays the cluster out for a picture of that width, in pixels.
export function topology(s: Status, width: number): Topology {
  const nodes = s.nodes ?? [];
  const compact = nodes.length > 8;
  const want = compact ? 132 : 210;
  const columns = Math.max(1, Math.min(nodes.length, Math.floor((width - gap) / (want + gap))));
  const networks = Math.max(0, ...nodes.map((n) => n.addresses?.length ?? 0));
  const w = Math.min(compact ? 160 : 280, (width - gap) / columns - gap);
  const left = (width - columns * (w + gap) + gap) / 2;
  const shown = compact ? 1 : 4;
  const h = title + chip * Math.min(shown + 1, Math.max(1, most(s))) + 12;
  const watch = monitorsByNode(s);
  const rowHeight = over + networks * bus + 8 + h + (s.mirrors?.length ? mirrorRoom : 0) + 12;

  const out: NodeBox[] = nodes.map((n, i) => {
    const row = Math.floor(i / columns);
    const x = left + (i % columns) * (w + gap);
    const top = row * rowHeight;
    const y = top + over + networks * bus + 8;
    const own = (s.groups ?? []).filter((g) => g.owner === n.name);
    const fit = own.length > shown ? shown : own.length;
    return {
      name: n.name,
      state: n.state,
      self: n.self,
      leader: n.name === s.leader,
      witness: n.witness ?? false,
      groups: own.slice(0, fit).map((g) => ({ name: g.name, phase: g.phase })),
      more: own.length - fit,
      ...(watch.get(n.name) ?? { bad: 0, watched: 0 }),
      wires: (n.addresses ?? []).map((a, k) => ({
        network: k + 1,
        x: x + ((k + 1) * w) / (networks + 1),
        from: top + over + k * bus,
        up: a.up || n.self,
        address: a.address,
      })),
      x,
      y,
      w,
      h,
    };
  });
  const rows = Math.max(1, Math.ceil(nodes.length / columns));
  return {
    width,
    height: rows * rowHeight,
    nodes: out,
    buses: buses(s, out, rows, columns, rowHeight, networks),
    mirrors: mirrors(s, out),
  };
}

// most is how many groups the fullest node has.
function most(s: Status): number {
  const count = new Map<string, number>();
  for (const g of s.groups ?? []) if (g.owner) count.set(g.owner, (count.get(g.owner) ?? 0) + 1);
  return Math.max(0, ...count.values());
}

function monitorsByNode(s: Status): Map<string, { bad: number; watched: number }> {
  const out = new Map<string, { bad: number; watched: number }>();
  for (const m of s.monitors ?? []) {
    for (const n of m.nodes ?? []) {
      const sum = out.get(n.node) ?? { bad: 0, watched: 0 };
      if (n.verdict === 'bad' || n.verdict === 'suspect') sum.bad++;
      if (n.verdict !== 'unknown') sum.watched++;
      out.set(n.node, sum);
    }
  }
  return out;
}

function buses(s: Status, nodes: NodeBox[], rows: number, columns: number, rowHeight: number, networks: number): Bus[] {
  const out: Bus[] = [];
  for (let row = 0; row < rows; row++) {
    const of = nodes.slice(row * columns, (row + 1) * columns);
    const first = of[0];
    const last = of[of.length - 1];
    if (!first || !last) continue;
    for (let k = 1; k <= networks; k++) {
      const lost =
        (s.networks ?? []).find((n) => n.number === k)?.directions?.filter((d) => d.state === 'lost').length ?? 0;
      out.push({ network: k, y: row * rowHeight + over + (k - 1) * bus, x1: first.x, x2: last.x + last.w, lost });
    }
  }
  return out;
}

// mirrors joins the two copies of each mirror disk below the nodes.
function mirrors(s: Status, nodes: NodeBox[]): MirrorWire[] {
  const at = new Map(nodes.map((n) => [n.name, n]));
  const out: MirrorWire[] = [];
  for (const m of s.mirrors ?? []) {
    const a = at.get(m.copies?.[0]?.node ?? '');
    const b = at.get(m.copies?.[1]?.node ?? '');
    if (!a || !b) continue;
    const copying = m.copies?.find((c) => c.state === 'copying');
    const good = m.copies?.every((c) => c.state === 'in_sync');
    const [x1, x2] = [a.x + a.w / 2, b.x + b.w / 2];
    const low = a.y + a.h + 14;
    const state = good ? 'ok' : copying ? 'busy' : 'bad';
    const text = copying ? `${m.name} ${Math.floor(copying.percent ?? 0)} %` : m.name;
    const beside = a.y === b.y;
    const path = beside
      ? `M${x1} ${a.y + a.h} L${x1} ${low} L${x2} ${low} L${x2} ${b.y + b.h}`
      : `M${x1} ${a.y + a.h} L${x1} ${low} L${x2} ${low} L${x2} ${b.y}`;
    out.push({ name: m.name, path, x: beside ? (x1 + x2) / 2 : x1 + 24, y: low, state, text });
  }
  // Of many mirror disks between the same rows the first few can be read.
  return out.slice(0, 8);
}
