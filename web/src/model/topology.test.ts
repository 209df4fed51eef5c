import { expect, test } from 'vitest';
import type { Status } from '../api/types';
import { topology } from './topology';

function cluster(nodes: number, groups: number): Status {
  return {
    cluster: 'c',
    node: 'n0',
    leader: 'n1',
    quorum: true,
    nodes: Array.from({ length: nodes }, (_, i) => ({
      name: `n${i}`,
      state: 'up',
      self: i === 0,
      addresses: [
        { address: `10.0.0.${i}`, up: i !== 0 },
        { address: `10.0.1.${i}`, up: i !== 1 },
      ],
    })),
    groups: Array.from({ length: groups }, (_, i) => ({ name: `g${i}`, phase: 'online', owner: `n${i % nodes}` })),
    monitors: [
      {
        name: 'm',
        nodes: [
          { node: 'n1', verdict: 'bad' },
          { node: 'n0', verdict: 'good' },
        ],
      },
    ],
    mirrors: [
      {
        name: 'md',
        copies: [
          { node: 'n0', state: 'in_sync' },
          { node: 'n1', state: 'copying', percent: 41.7 },
        ],
      },
    ],
    networks: [{ number: 2, directions: [{ from: 'n0', to: 'n1', state: 'lost' }] }],
  } as unknown as Status;
}

test.each([
  [2, 1, 1100],
  [2, 1, 340],
  [5, 40, 800],
  [32, 500, 1100],
  [32, 500, 340],
])('%d nodes and %d groups on %d pixels: nothing overlaps, nothing is outside', (nodes, groups, width) => {
  const t = topology(cluster(nodes, groups), width);
  expect(t.nodes).toHaveLength(nodes);
  for (const a of t.nodes) {
    expect(a.x).toBeGreaterThanOrEqual(0);
    expect(a.x + a.w).toBeLessThanOrEqual(width + 0.01);
    expect(a.y + a.h).toBeLessThanOrEqual(t.height);
    expect(a.wires).toHaveLength(2);
    for (const b of t.nodes) {
      if (a === b) continue;
      expect(a.x + a.w <= b.x || b.x + b.w <= a.x || a.y + a.h <= b.y || b.y + b.h <= a.y).toBe(true);
    }
  }
  expect(t.nodes.reduce((sum, n) => sum + n.groups.length + n.more, 0)).toBe(groups);
});

test('what is wrong shows', () => {
  const t = topology(cluster(2, 1), 800);
  expect(t.nodes[0]?.wires.map((w) => w.up)).toEqual([true, true]); // a node hears itself
  expect(t.nodes[1]).toMatchObject({ leader: true, bad: 1, watched: 1 });
  expect(t.nodes[1]?.wires.map((w) => w.up)).toEqual([true, false]);
  expect(t.buses.map((b) => b.lost)).toEqual([0, 1]);
  expect(t.mirrors).toMatchObject([{ state: 'busy', text: 'md 41 %' }]);
});
