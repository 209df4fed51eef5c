import type { Event } from '../api/types';

export interface Filter {
  text: string; // of the line, its code or its id
  level: string; // '' is all; else that one and what is heavier
  node: string;
  group: string;
}

const weight: Record<string, number> = { info: 0, warn: 1, error: 2 };

// chosen returns the events that a filter lets through, the newest first.
export function chosen(events: readonly Event[], f: Filter): Event[] {
  const text = f.text.trim().toLowerCase();
  const least = weight[f.level] ?? 0;
  return events
    .filter(
      (e) =>
        (weight[e.level] ?? 0) >= least &&
        (f.node === '' || e.node === f.node) &&
        (f.group === '' || e.fields?.['group'] === f.group) &&
        (text === '' || `${e.text} ${e.code} ${e.id} ${e.module}`.toLowerCase().includes(text)),
    )
    .reverse();
}

// incidents returns the heaviest event of each story that went beyond information,
// the newest story first: of the events that are at hand, a report tells the rest.
export function incidents(events: readonly Event[]): Event[] {
  const cause = new Map(events.map((e) => [e.id, e.cause]));
  const root = (id: string): string => {
    const seen = new Set<string>();
    for (let at = id; ;) {
      seen.add(at);
      const up = cause.get(at);
      if (up === undefined || up === '' || !cause.has(up) || seen.has(up)) return at;
      at = up;
    }
  };
  const found = new Map<string, Event>();
  for (const e of events) {
    const acted = e.level !== 'info' || /^group-(failover|move|restart|takeover)-begun$/.test(e.code);
    if (!acted) continue;
    const at = root(e.id);
    const known = found.get(at);
    if (!known || (weight[e.level] ?? 0) > (weight[known.level] ?? 0)) found.set(at, e);
  }
  return [...found.values()].sort((a, b) => Date.parse(b.time) - Date.parse(a.time));
}
