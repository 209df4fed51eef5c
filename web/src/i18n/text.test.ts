import { expect, test } from 'vitest';
import { en, type Key } from './en';
import { ja } from './ja';
import { translator } from './text';

const holes = (text: string) => [...text.matchAll(/\{\w+\}/g)].map((m) => m[0]).sort();

test('every text has the same values in both languages', () => {
  for (const key of Object.keys(en) as Key[])
    expect([...new Set(holes(ja[key]))], key).toEqual([...new Set(holes(en[key]))]);
});

test('values take their places', () => {
  const t = translator('en');
  expect(t('overview.survives.n', { n: 2 })).toBe('2 more faults can be survived');
  expect(t('concern.down')).toBe('Node {name} is down');
});
