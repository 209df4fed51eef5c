import createClient from 'openapi-fetch';
import type { paths } from './schema';

// Problem is an error as the daemon tells it: what is wrong, and what to do.
export class Problem extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly hint = '',
    readonly status = 0,
  ) {
    super(message);
  }
}

export const api = createClient<paths>({ baseUrl: '' });

// problemOf reads the body of an answer that is none.
export function problemOf(body: unknown, status: number): Problem {
  const b = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const text = (key: string) => (typeof b[key] === 'string' ? b[key] : '');
  return new Problem(text('code') || 'internal', text('detail') || `HTTP ${status}`, text('hint'), status);
}

// asProblem makes what was thrown a problem; what is not ours is the network.
export function asProblem(e: unknown): Problem {
  return e instanceof Problem ? e : new Problem('no-answer', e instanceof Error ? e.message : String(e));
}

// answer returns what a call came to, or throws a Problem.
export async function answer<T>(call: Promise<{ data?: T; error?: unknown; response: Response }>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok || data === undefined) throw problemOf(error, response.status);
  return data;
}

// own calls the console itself, which is no part of the API.
export async function own<T>(method: string, path: string, body?: unknown): Promise<T> {
  const r = await fetch(path, {
    method,
    headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  });
  const told: unknown = await r.json().catch(() => null);
  if (!r.ok) throw problemOf(told, r.status);
  return told as T;
}
