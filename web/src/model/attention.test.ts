import { expect, test } from 'vitest';
import type { Status } from '../api/types';
import { attention, severity } from './attention';

const well = { cluster: 'c', quorum: true, survives: 1, why: '' } as unknown as Status;
const keys = (s: Partial<Status>) => attention({ ...well, ...s }).map((c) => `${c.level} ${c.key} ${c.name} ${c.why}`);

test('nothing is wrong with a cluster that is well', () => {
  expect(keys({})).toEqual([]);
  expect(severity(well)).toBe('success');
});

test('the worst comes first', () => {
  const s = {
    groups: [
      { name: 'a', phase: 'online', held: { why: 'failed over too often', since: '' } },
      { name: 'b', phase: 'failed', why: 'exec did not stop' },
    ],
    nodes: [{ name: 'n', state: 'down', why: 'silent' }],
    networks: [
      {
        number: 2,
        directions: [
          { from: 'n', to: 'm', state: 'lost' },
          { from: 'm', to: 'n', state: 'ok' },
        ],
      },
    ],
    mirrors: [
      {
        name: 'md',
        copies: [
          { node: 'n', state: 'outdated' },
          { node: 'm', state: 'in_sync' },
        ],
      },
    ],
    monitors: [{ name: 'w', verdict: 'bad', nodes: [{ node: 'n', verdict: 'bad', text: 'exit code 1' }] }],
  } as unknown as Partial<Status>;
  expect(keys(s)).toEqual([
    'danger concern.down n silent',
    'danger concern.failed b exec did not stop',
    'warning concern.network 2 n → m',
    'warning concern.held a failed over too often',
    'warning concern.copy md outdated',
    'warning concern.monitor w exit code 1',
  ]);
  expect(severity({ ...well, ...s })).toBe('danger');
});

test('what can no longer be survived is a warning, and no majority is worse', () => {
  expect(severity({ ...well, survives: 0 })).toBe('warning');
  expect(severity({ ...well, quorum: false })).toBe('danger');
});
