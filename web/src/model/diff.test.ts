import { expect, test } from 'vitest';
import { around, diff } from './diff';

const shown = (before: string, after: string) =>
  diff(before, after).map((l) => ({ same: ' ', gone: '-', new: '+' })[l.kind] + l.text);

test.each([
  ['a\nb\nc', 'a\nb\nc', [' a', ' b', ' c']],
  ['a\nb\nc', 'a\nx\nc', [' a', '-b', '+x', ' c']],
  ['a\nc', 'a\nb\nc', [' a', '+b', ' c']],
  ['a\nb\na\nb', 'b\na', ['-a', ' b', ' a', '-b']],
])('%j to %j', (before, after, lines) => expect(shown(before, after)).toEqual(lines));

test('both texts can be had from it', () => {
  let seed = 1;
  const next = (n: number) => (seed = (seed * 48271) % 2147483647) % n;
  for (let round = 0; round < 200; round++) {
    const text = () => Array.from({ length: next(12) }, () => 'abc'[next(3)]).join('\n');
    const before = text();
    const after = text();
    const lines = diff(before, after);
    expect(
      lines
        .filter((l) => l.kind !== 'new')
        .map((l) => l.text)
        .join('\n'),
    ).toBe(before);
    expect(
      lines
        .filter((l) => l.kind !== 'gone')
        .map((l) => l.text)
        .join('\n'),
    ).toBe(after);
  }
});

test('what is far from a change is left out', () => {
  const before = Array.from({ length: 20 }, (_, i) => String(i)).join('\n');
  const got = around(diff(before, before.replace('\n10\n', '\nten\n')), 1);
  expect(got.map((l) => l?.text ?? null)).toEqual([null, '9', '10', 'ten', '11', null]);
});
