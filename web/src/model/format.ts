// Texts of numbers, the same in every language.

// span is how long something takes, from milliseconds.
export function span(ms: number): string {
  const sign = ms < 0 ? '-' : '';
  const t = Math.abs(ms);
  if (t < 1000) return `${sign}${Math.round(t)} ms`;
  if (t < 60_000) return `${sign}${(t / 1000).toFixed(t < 10_000 ? 2 : 1)} s`;
  const min = Math.floor(t / 60_000);
  if (min < 60) return `${sign}${min} min ${Math.floor((t % 60_000) / 1000)} s`;
  const h = Math.floor(min / 60);
  return h < 48 ? `${sign}${h} h ${min % 60} min` : `${sign}${Math.floor(h / 24)} d ${h % 24} h`;
}

// bytes is an amount of data.
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let u = 0;
  while (n >= 1024 && u < units.length - 1) {
    n /= 1024;
    u++;
  }
  return `${u === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[u] ?? ''}`;
}

const two = (n: number) => String(n).padStart(2, '0');

// clock is the time of day, with milliseconds: what happens in a cluster is a
// matter of those.
export function clock(t: string): string {
  const d = new Date(t);
  if (Number.isNaN(d.getTime())) return '';
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, '0')}`;
}

// day is the date, as ISO 8601 writes it.
export function day(t: string): string {
  const d = new Date(t);
  if (Number.isNaN(d.getTime()) || d.getFullYear() < 1971) return '';
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
}

// moment is date and time of day.
export function moment(t: string): string {
  const date = day(t);
  return date === '' ? '' : `${date} ${clock(t).slice(0, 8)}`;
}
