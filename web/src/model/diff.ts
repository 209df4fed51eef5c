// Line is a line of one text or of both.
export interface DiffLine {
  kind: 'same' | 'gone' | 'new';
  text: string;
  before: number; // its number in the old text, 0 where it is not
  after: number;
}

// most is how large a table may get, in cells; beyond it the middle of two texts
// that have little in common is shown as replaced.
const most = 4_000_000;

// diff compares two texts by lines: the longest common subsequence of what lies
// between a common beginning and a common end.
export function diff(before: string, after: string): DiffLine[] {
  const a = before.split('\n');
  const b = after.split('\n');
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const out: DiffLine[] = [];
  const same = (i: number, j: number) => out.push({ kind: 'same', text: a[i] ?? '', before: i + 1, after: j + 1 });
  const gone = (i: number) => out.push({ kind: 'gone', text: a[i] ?? '', before: i + 1, after: 0 });
  const fresh = (j: number) => out.push({ kind: 'new', text: b[j] ?? '', before: 0, after: j + 1 });
  for (let i = 0; i < head; i++) same(i, i);
  middle(a.slice(head, a.length - tail), b.slice(head, b.length - tail), {
    same: (i, j) => same(head + i, head + j),
    gone: (i) => gone(head + i),
    fresh: (j) => fresh(head + j),
  });
  for (let i = tail; i > 0; i--) same(a.length - i, b.length - i);
  return out;
}

interface Sink {
  same: (i: number, j: number) => void;
  gone: (i: number) => void;
  fresh: (j: number) => void;
}

function middle(a: string[], b: string[], to: Sink): void {
  const n = a.length;
  const m = b.length;
  const width = m + 1;
  // longest[i*width+j] is how long the common part of a from i and b from j is.
  const longest = n * m > most ? null : new Uint32Array((n + 1) * width);
  const common = (i: number, j: number) => longest?.[i * width + j] ?? 0;
  if (longest) {
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        longest[i * width + j] =
          a[i] === b[j] ? common(i + 1, j + 1) + 1 : Math.max(common(i + 1, j), common(i, j + 1));
      }
    }
  }
  let i = 0;
  let j = 0;
  while (i < n || j < m) {
    if (longest && i < n && j < m && a[i] === b[j]) to.same(i++, j++);
    else if (i < n && (j >= m || common(i + 1, j) >= common(i, j + 1))) to.gone(i++);
    else to.fresh(j++);
  }
}

// around leaves out what is the same and far from every change: a null stands for
// what is left out.
export function around(lines: readonly DiffLine[], context = 3): (DiffLine | null)[] {
  const near = lines.map(() => false);
  lines.forEach((l, at) => {
    if (l.kind === 'same') return;
    for (let i = Math.max(0, at - context); i <= Math.min(lines.length - 1, at + context); i++) near[i] = true;
  });
  const out: (DiffLine | null)[] = [];
  lines.forEach((l, at) => {
    if (near[at]) out.push(l);
    else if (out.length > 0 ? out[out.length - 1] !== null : at === 0) out.push(null);
  });
  return out;
}
