import { expect, test } from 'vitest';
import { offsetOf, problemsOf } from './problems';

test('problems are where the daemon says', () => {
  expect(
    problemsOf('cluster file:7:3: unknown key "startupp"\n  did you mean startup?\ncluster file:9: no value'),
  ).toEqual([
    { line: 7, column: 3, text: 'unknown key "startupp"' },
    { line: 0, column: 0, text: 'did you mean startup?' },
    { line: 9, column: 1, text: 'no value' },
  ]);
  expect(problemsOf('')).toEqual([]);
});

test('a place is found in the text, or its end', () => {
  const text = 'ab\ncd\n';
  expect([offsetOf(text, 1, 1), offsetOf(text, 2, 2), offsetOf(text, 2, 99), offsetOf(text, 9, 1)]).toEqual([
    0, 4, 6, 6,
  ]);
});
