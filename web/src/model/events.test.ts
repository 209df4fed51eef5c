import { expect, test } from 'vitest';
import type { Event } from '../api/types';
import { chosen, incidents } from './events';

const e = (n: number, more: Partial<Event> = {}): Event => ({
  id: `A/${n}`,
  time: new Date(n * 1000).toISOString(),
  node: 'A',
  level: 'info',
  module: 'rc',
  code: 'x',
  text: `line ${n}`,
  ...more,
});
const ids = (events: Event[]) => events.map((x) => x.id);

test('a filter lets through what it names, the newest first', () => {
  const log = [
    e(1),
    e(2, { level: 'warn', fields: { group: 'g' } }),
    e(3, { level: 'error', node: 'B' }),
    e(4, { code: 'node-down' }),
  ];
  const all = { text: '', level: '', node: '', group: '' };
  expect(ids(chosen(log, all))).toEqual(['A/4', 'A/3', 'A/2', 'A/1']);
  expect(ids(chosen(log, { ...all, level: 'warn' }))).toEqual(['A/3', 'A/2']);
  expect(ids(chosen(log, { ...all, node: 'B' }))).toEqual(['A/3']);
  expect(ids(chosen(log, { ...all, group: 'g' }))).toEqual(['A/2']);
  expect(ids(chosen(log, { ...all, text: ' NODE-d ' }))).toEqual(['A/4']);
});

test('an incident is told once, by its heaviest line', () => {
  const log = [
    e(1, { level: 'warn' }),
    e(2, { cause: 'A/1', level: 'error' }),
    e(3, { cause: 'A/2' }),
    e(4),
    e(5, { cause: 'gone/1', code: 'group-move-begun' }),
    e(6, { cause: 'A/6', level: 'warn' }), // a circle, which only a liar can make
  ];
  expect(ids(incidents(log))).toEqual(['A/6', 'A/5', 'A/2']);
});
