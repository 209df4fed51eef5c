import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Live, type Hooks } from './live';

// A cluster of two nodes, as the browser sees it: own is the one that serves the
// page, other the one that it may go on at.
class Cluster {
  own = true;
  other = false;
  session = true;
  honors = true; // tickets
  mayRead = true;
  asked: string[] = [];
  private streams: ReadableStreamDefaultController<Uint8Array>[] = [];

  readonly fetch = (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const url = input instanceof Request ? input.url : input.toString();
    const path = url.replace(/^http:\/\/localhost(:\d+)?/, '').replace(/\?.*/, '');
    this.asked.push(path);
    const up = path.startsWith('https://') ? this.other : this.own;
    if (!up) {
      return new Promise((_, no) => init?.signal?.addEventListener('abort', () => no(new Error('aborted'))));
    }
    return Promise.resolve(this.answer(path, init?.signal));
  };

  private answer(path: string, signal: AbortSignal | null | undefined): Response {
    switch (path) {
      case '/session/ticket':
        return this.session ? Response.json({ ticket: 'a-ticket' }) : new Response(null, { status: 401 });
      case '/session/handover':
        this.session = this.honors;
        return this.honors ? Response.json({}) : new Response(null, { status: 401 });
      case '/v1/events':
        return Response.json([event(1)]);
      case '/v1/stream': {
        if (!this.mayRead)
          return Response.json({ code: 'not-allowed', detail: 'ann has not the role read' }, { status: 403 });
        if (!this.session) return Response.json({ code: 'not-signed-in', detail: 'nobody' }, { status: 401 });
        const body = new ReadableStream<Uint8Array>({
          start: (c) => {
            this.streams.push(c);
            signal?.addEventListener('abort', () => c.error(new Error('cut')));
          },
        });
        return new Response(body);
      }
    }
    return new Response(null, { status: 204 });
  }

  push(kind: string, data: unknown): void {
    this.streams.at(-1)?.enqueue(new TextEncoder().encode(`event: ${kind}\ndata: ${JSON.stringify(data)}\n\n`));
  }

  comment(): void {
    this.streams.at(-1)?.enqueue(new TextEncoder().encode(':\n\n'));
  }

  cut(): void {
    this.streams.at(-1)?.error(new Error('cut'));
  }
}

const event = (n: number) => ({
  id: `A/${n}`,
  time: new Date(n * 1000).toISOString(),
  node: 'A',
  level: 'info',
  module: 'rc',
  code: 'x',
  text: '',
});
const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);

let cluster: Cluster;
let live: Live;
let moved: string[];
let out: string[];

beforeEach(async () => {
  vi.useFakeTimers();
  // The clock of AbortSignal.timeout is not the one that is faked.
  vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => {
    const c = new AbortController();
    setTimeout(() => c.abort(), ms);
    return c.signal;
  });
  cluster = new Cluster();
  vi.stubGlobal('fetch', cluster.fetch);
  vi.stubGlobal('location', { href: 'http://localhost/' });
  moved = [];
  out = [];
  const hooks: Hooks = {
    signedOut: (why) => out.push(why),
    elsewhere: () => [{ node: 'B', origin: 'https://b:29003' }],
    move: (to, ticket) => moved.push(`${to.node} ${ticket ?? 'without'}`),
  };
  live = new Live(hooks);
  live.start();
  await pass(10);
});

afterEach(() => {
  live.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

test('status and events are shown as they come, each event once', async () => {
  cluster.push('status', { node: 'A' });
  cluster.push('event', event(2));
  cluster.push('event', event(1));
  await pass(1);
  expect(live.snapshot().connection).toBe('live');
  expect(live.snapshot().status?.node).toBe('A');
  expect(live.snapshot().events.map((e) => e.id)).toEqual(['A/1', 'A/2']);
});

test('a silent node that answers when it is asked is no trouble', async () => {
  cluster.push('status', { node: 'A' });
  await pass(20_000);
  expect(live.snapshot().connection).toBe('live');
  expect(cluster.asked.filter((a) => a === '/v1/stream')).toHaveLength(1);
});

test('a node is gone within three seconds after it was last heard, and not before two', async () => {
  for (let i = 0; i < 5; i++) {
    cluster.comment();
    await pass(1000);
  }
  expect(cluster.asked.filter((a) => a === '/ping')).toEqual([]);
  cluster.comment();
  cluster.own = false;
  cluster.other = true;
  await pass(2000);
  expect(moved).toEqual([]);
  await pass(1100);
  expect(moved[0]).toBe('B a-ticket');
});

test('one question that is answered late is no trouble, nor is a stream that goes on', async () => {
  cluster.comment();
  cluster.own = false;
  await pass(1900); // both questions have been asked
  cluster.comment();
  await pass(2000);
  expect(live.snapshot().connection).not.toBe('gone');
  expect(moved).toEqual([]);
});

test('a stream that breaks is begun again, from the event that came last', async () => {
  cluster.cut();
  await pass(1000);
  expect(cluster.asked.filter((a) => a === '/v1/stream')).toHaveLength(2);
  expect(live.snapshot().connection).toBe('connecting');
});

test('when the node is gone the page goes on at another one, with the ticket', async () => {
  cluster.push('status', { node: 'A' });
  await pass(1);
  cluster.own = false;
  await pass(6000);
  expect(live.snapshot().connection).toBe('gone');
  expect(moved).toEqual([]); // nobody answers yet
  cluster.other = true;
  await pass(2500);
  expect(moved[0]).toBe('B a-ticket');
});

test('what would be lost keeps the page here', async () => {
  const release = live.hold();
  cluster.own = false;
  cluster.other = true;
  await pass(8000);
  expect(live.snapshot().other?.node).toBe('B');
  expect(moved).toEqual([]);
  release();
  await pass(3000);
  expect(moved[0]).toBe('B a-ticket');
});

test('a node that comes back is gone no more', async () => {
  cluster.own = false;
  await pass(6000);
  expect(live.snapshot().connection).toBe('gone');
  cluster.own = true;
  await pass(3000);
  expect(live.snapshot().connection).toBe('connecting');
  cluster.push('status', { node: 'A' });
  await pass(1);
  expect(live.snapshot().connection).toBe('live');
});

test('a daemon that was started anew is shown the ticket', async () => {
  cluster.session = false;
  cluster.cut();
  await pass(2000);
  expect(out).toEqual([]);
  expect(cluster.asked.filter((a) => a === '/session/handover')).toHaveLength(1);
  cluster.push('status', { node: 'A' });
  await pass(1);
  expect(live.snapshot().connection).toBe('live');
});

test('when the ticket is no good, the user is asked', async () => {
  cluster.session = false;
  cluster.honors = false;
  cluster.cut();
  await pass(2000);
  expect(out).toEqual(['nobody']);
});

test('whoever may not read is told so', async () => {
  cluster.mayRead = false;
  cluster.cut();
  await pass(2000);
  expect(out).toEqual(['ann has not the role read']);
});
