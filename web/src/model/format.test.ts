import { expect, test } from 'vitest';
import { bytes, clock, day, moment, span } from './format';

test.each([
  [0.4, '0 ms'],
  [999, '999 ms'],
  [1050, '1.05 s'],
  [59_949, '59.9 s'],
  [61_000, '1 min 1 s'],
  [3_720_000, '1 h 2 min'],
  [49 * 3_600_000, '2 d 1 h'],
  [-250, '-250 ms'],
])('span %d', (ms, text) => expect(span(ms)).toBe(text));

test.each([
  [0, '0 B'],
  [1536, '1.5 KiB'],
  [256 * 2 ** 20, '256 MiB'],
  [2 ** 60, '1024 PiB'],
])('bytes %d', (n, text) => expect(bytes(n)).toBe(text));

test('times are local, and none for none', () => {
  const t = new Date(2026, 0, 2, 3, 4, 5, 6).toISOString();
  expect([day(t), clock(t), moment(t)]).toEqual(['2026-01-02', '03:04:05.006', '2026-01-02 03:04:05']);
  expect([moment('0001-01-01T00:00:00Z'), clock('no time')]).toEqual(['', '']);
});
