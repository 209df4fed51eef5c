import { describe, expect, it } from 'vitest';
import type { SimGroup } from '../api/types';
import { asked, both, fate, question } from './foreseen';

describe('a question', () => {
  it('is the same after it was an address', () => {
    const q = {
      kill: ['CLP-1', 'CLP-2'],
      pull: ['CLP-1:eth0'],
      leave: ['w'],
      move: 'failover=CLP-2',
      fail: 'exec@CLP-1',
    };
    expect(asked(new URLSearchParams(question(q)))).toEqual(q);
  });
  it('is none where nothing is to happen', () => {
    expect(asked(new URLSearchParams('kill=&move=&other=x'))).toBeNull();
  });
  it('can be put together of two', () => {
    expect(both({ kill: ['a'], move: 'g' }, { kill: ['a', 'b'], move: 'h', fail: 'r' })).toEqual({
      kill: ['a', 'b'],
      move: 'h',
      fail: 'r',
    });
  });
});

const group = (g: Partial<SimGroup>): SimGroup => ({
  name: 'g',
  phase: 'online',
  wanted: true,
  served: true,
  outage: 0,
  ...g,
});

describe('what becomes of a group', () => {
  for (const [what, g, key, good] of [
    ['nothing', { before: 'a', after: 'a' }, 'foreseen.untouched', true],
    ['a restart', { before: 'a', after: 'a', outage: 2e9 }, 'foreseen.again', true],
    ['a move', { before: 'a', after: 'b', outage: 2e9 }, 'foreseen.moved', true],
    ['a start', { after: 'b' }, 'foreseen.started', true],
    ['nothing, of one that is stopped', { served: false, wanted: false, phase: 'offline' }, 'foreseen.stopped', true],
    ['a failure', { before: 'a', after: 'a', served: false, phase: 'failed' }, 'foreseen.stuck', false],
    ['the end', { before: 'a', served: false, phase: 'offline' }, 'foreseen.nowhere', false],
    ['two owners', { before: 'a', after: 'b', both: ['a', 'b'] }, 'foreseen.both', false],
  ] as const)
    it(`is ${what}`, () => {
      expect(fate(group({ ...g, both: 'both' in g ? [...g.both] : [] }))).toMatchObject({ key, good });
    });
  it('is told with how long it was active nowhere', () => {
    expect(fate(group({ before: 'a', after: 'b', outage: 902e6 })).values).toMatchObject({ for: '902 ms' });
  });
});
