// What would happen: questions as the address of the page has them, and what their
// answers come to.
import type { SimGroup, SimulateRequest } from '../api/types';
import type { Key } from '../i18n/en';
import { span } from './format';

// A question is what the API takes, without the text of a file.
const many = ['kill', 'pull', 'leave'] as const;
const single = ['move', 'fail'] as const;

// asked reads a question from an address, or returns null where there is none.
export function asked(search: URLSearchParams): SimulateRequest | null {
  const q: SimulateRequest = {};
  for (const key of many) {
    const values = search.getAll(key).filter((v) => v !== '');
    if (values.length > 0) q[key] = values;
  }
  for (const key of single) {
    const value = search.get(key);
    if (value) q[key] = value;
  }
  return Object.keys(q).length > 0 ? q : null;
}

// question is the address of one.
export function question(q: SimulateRequest): string {
  const search = new URLSearchParams();
  for (const key of many) for (const v of q[key] ?? []) search.append(key, v);
  for (const key of single) if (q[key]) search.set(key, q[key]);
  return search.toString();
}

// both asks for two things at once. Of what there can be one of, the second stays.
export function both(a: SimulateRequest, b: SimulateRequest): SimulateRequest {
  const out: SimulateRequest = { ...a, ...b };
  for (const key of many) {
    const values = [...new Set([...(a[key] ?? []), ...(b[key] ?? [])])];
    if (values.length > 0) out[key] = values;
  }
  return out;
}

export interface Fate {
  key: Key;
  values: Record<string, string>;
  good: boolean;
}

const ms = 1e6; // nanoseconds

// fate is what becomes of a group.
export function fate(g: SimGroup): Fate {
  const before = g.before ?? '';
  const after = g.after ?? '';
  const values = { before, after, phase: g.phase, for: span(g.outage / ms), nodes: (g.both ?? []).join(', ') };
  const is = (key: Key, good: boolean): Fate => ({ key, values, good });
  if ((g.both ?? []).length > 0) return is('foreseen.both', false);
  if (g.served && before === after) return is(g.outage === 0 ? 'foreseen.untouched' : 'foreseen.again', true);
  if (g.served) return is(before === '' ? 'foreseen.started' : 'foreseen.moved', true);
  if (!g.wanted && before === '') return is('foreseen.stopped', true);
  return is(after === '' ? 'foreseen.nowhere' : 'foreseen.stuck', false);
}
