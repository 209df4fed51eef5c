import { asProblem, own, Problem } from './api/client';
import type { Elsewhere, Event, Status } from './api/types';
import { Reader } from './model/sse';

// How soon it is noticed that a node is gone, in milliseconds. Its stream says
// something every second; when it has been silent for longer the node is asked, and is
// gone when it leaves two questions unanswered. Two, because a packet gets lost; and
// no sooner, because a page that moves without need costs more than a second.
const silent = 1300;
const within = 1000;
const again = 500;
const look = 250; // how often it is looked whether it is silent
const ticketEvery = 120_000;
const kept = 1000; // events

export type Connection = 'connecting' | 'live' | 'gone';

// View is what is known of the cluster at one moment.
export interface View {
  connection: Connection;
  status: Status | null;
  at: number; // when the status came
  events: readonly Event[]; // the newest last
  other: Elsewhere | null; // a node that answers while this one is gone
}

export interface Hooks {
  signedOut: (why: string) => void;
  elsewhere: () => readonly Elsewhere[];
  move: (to: Elsewhere, ticket: string | null) => void;
}

// Live follows the cluster through the stream of one node, and looks for another
// node when that one is gone.
export class Live {
  private view: View = { connection: 'connecting', status: null, at: 0, events: [], other: null };
  private readonly listeners = new Set<() => void>();
  private readonly end = new AbortController();
  private known = new Set<string>();
  private latest = ''; // the id of the event that came last
  private tickets: ReturnType<typeof setInterval> | undefined;
  private ticket: string | null = null;
  private holds = 0;

  constructor(private readonly hooks: Hooks) {}

  readonly subscribe = (f: () => void) => {
    this.listeners.add(f);
    return () => this.listeners.delete(f);
  };
  readonly snapshot = () => this.view;

  start(): void {
    this.tickets = setInterval(() => void this.renew(), ticketEvery);
    void this.renew();
    void this.run();
  }

  stop(): void {
    this.end.abort();
    clearInterval(this.tickets);
  }

  private ended(): boolean {
    return this.end.signal.aborted;
  }

  // hold keeps the page at this node, because something on it would be lost, until
  // the function that is returned is called.
  hold(): () => void {
    this.holds++;
    return () => {
      this.holds--;
    };
  }

  // move opens the same view at another node.
  move(to: Elsewhere): void {
    this.hooks.move(to, this.ticket);
  }

  private change(part: Partial<View>): void {
    this.view = { ...this.view, ...part };
    for (const f of this.listeners) f();
  }

  // renew gets a fresh ticket for the day that this node is gone.
  private async renew(): Promise<void> {
    try {
      this.ticket = (await own<{ ticket: string }>('POST', '/session/ticket')).ticket;
    } catch {
      // The one before is good for a while; the stream tells what is wrong.
    }
  }

  private async run(): Promise<void> {
    while (!this.ended()) {
      if (this.view.connection !== 'gone') {
        try {
          await this.follow();
        } catch (e) {
          const p = asProblem(e);
          const refused = p.status === 403 || (p.status === 401 && !(await this.signInAgain()));
          if (refused) {
            this.hooks.signedOut(p.message);
            return;
          }
        }
        if (this.ended()) return;
        if (this.view.connection === 'live') this.change({ connection: 'connecting' });
      }
      if (!(await this.lost()) && this.view.connection === 'gone')
        this.change({ connection: 'connecting', other: null });
      await pause(again);
    }
  }

  // signInAgain begins a new session where a daemon that was started anew has
  // forgotten the old one.
  private async signInAgain(): Promise<boolean> {
    const ticket = this.ticket;
    this.ticket = null;
    if (ticket === null) return false;
    try {
      await own('POST', '/session/handover', { ticket });
    } catch {
      return false;
    }
    await this.renew();
    return true;
  }

  // follow reads the stream until it breaks.
  private async follow(): Promise<void> {
    const cut = new AbortController();
    const stop = () => cut.abort();
    this.end.signal.addEventListener('abort', stop);
    let heard = Date.now();
    let asking = false;
    const isSilent = () => Date.now() - heard >= silent;
    const watch = setInterval(() => {
      if (asking || !isSilent()) return;
      asking = true;
      void this.lost(isSilent).then((lost) => {
        asking = false;
        if (lost) stop();
        else heard = Date.now();
      });
    }, look);
    try {
      const r = await fetch(`/v1/stream?after=${encodeURIComponent(this.latest)}`, { signal: cut.signal });
      if (!r.ok || !r.body) throw await refusal(r);
      await this.fill();
      const reader = new Reader();
      for (const body = r.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
        const { done, value } = await body.read();
        if (done) return;
        heard = Date.now();
        for (const m of reader.take(value)) this.take(m.event, m.data);
      }
    } finally {
      clearInterval(watch);
      this.end.signal.removeEventListener('abort', stop);
      cut.abort();
    }
  }

  private take(kind: string, data: string): void {
    if (kind === 'status') {
      this.change({ connection: 'live', status: JSON.parse(data) as Status, at: Date.now(), other: null });
    } else if (kind === 'event') {
      this.add([JSON.parse(data) as Event]);
    } else if (kind === 'missed') {
      void this.fill(true);
    }
  }

  // fill reads the newest events, where the stream begins or has left some out.
  private async fill(anew = false): Promise<void> {
    if (this.latest !== '' && !anew) return;
    const events = await own<Event[] | null>('GET', '/v1/events?newest=true&limit=500');
    this.add(events ?? []);
  }

  private add(events: readonly Event[]): void {
    const fresh = events.filter((e) => !this.known.has(e.id));
    const last = events[events.length - 1];
    if (last) this.latest = last.id;
    if (fresh.length === 0) return;
    const all = [...this.view.events, ...fresh].sort((a, b) => Date.parse(a.time) - Date.parse(b.time)).slice(-kept);
    this.known = new Set(all.map((e) => e.id));
    this.change({ events: all });
  }

  // lost says whether the node leaves two questions unanswered, and is silent all the
  // while. The others are asked meanwhile, so that the page can go on at once.
  private async lost(isSilent = () => true): Promise<boolean> {
    const known = this.view.connection === 'gone';
    const other = this.find();
    if (known) void other.then((o) => this.goOn(o));
    if (!(await this.unanswered()) || !isSilent() || this.ended()) return false;
    if (!known) {
      this.change({ connection: 'gone', other: null });
      this.goOn(await other);
    }
    return true;
  }

  // unanswered asks twice, the second time before the first has run out.
  private async unanswered(): Promise<boolean> {
    const ask = async (after: number) => {
      await pause(after);
      if (!(await this.answers('/ping', 'same-origin'))) throw new Error('silent');
    };
    try {
      await Promise.any([ask(0), ask(again)]);
      return false;
    } catch {
      return true;
    }
  }

  // find returns the first of all other nodes that answers, if one does.
  private async find(): Promise<Elsewhere | null> {
    try {
      return await Promise.any(
        this.hooks.elsewhere().map(async (e) => {
          if (!(await this.answers(`${e.origin}/ping`, 'no-cors'))) throw new Error('silent');
          return e;
        }),
      );
    } catch {
      return null; // the next round asks again
    }
  }

  private goOn(other: Elsewhere | null): void {
    if (!other || this.ended()) return;
    this.change({ other });
    if (this.holds === 0) this.move(other);
  }

  // answers says whether a node answers in time. Of another node's answer no more
  // than that can be seen.
  private async answers(url: string, mode: RequestMode): Promise<boolean> {
    try {
      const signal = AbortSignal.any([this.end.signal, AbortSignal.timeout(within)]);
      await fetch(url, { mode, cache: 'no-store', credentials: 'omit', signal });
      return true;
    } catch {
      return false;
    }
  }
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

async function refusal(r: Response): Promise<Problem> {
  const body = (await r.json().catch(() => null)) as { code?: string; detail?: string; hint?: string } | null;
  return new Problem(body?.code ?? 'internal', body?.detail ?? `HTTP ${r.status}`, body?.hint, r.status);
}
