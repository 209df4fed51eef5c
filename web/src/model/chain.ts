// The failover report: what a chain of events was, as a timeline in stages.
import type { Event } from '../api/types';

export type Stage = 'detect' | 'decide' | 'stop' | 'start' | 'other';

export interface Step {
  event: Event;
  depth: number; // how many causes stand before it, at most 6
  at: number; // milliseconds since the first one
  stage: Stage;
}

// Span is one piece of work that the chain tells of: a stage as a whole, or one
// resource within it.
export interface Span {
  label: string;
  node: string;
  stage: Exclude<Stage, 'other'>;
  from: number; // milliseconds since the first event
  to: number;
}

export interface Report {
  title: string;
  begun: string;
  total: number; // milliseconds
  level: string; // the heaviest
  steps: Step[];
  spans: Span[];
}

// The first expression that matches the code of an event decides its stage.
const stages: readonly [Stage, RegExp][] = [
  ['stop', /^(group-stop|resource-(stop|not-stop|forced|not-forced)|(group-)?isolated|group-not-isolated|stop-)/],
  ['start', /^(group-start|resource-(start|not-start))/],
  ['decide', /^(group-|request|script|solo|arbitration|fence|yield|final|quarantine)/],
  ['detect', /^(monitor|node|path|network|link|resource-failed|mirror|both-active)/],
];

// stageOf says which part of the story an event belongs to.
export function stageOf(e: Event): Stage {
  return stages.find(([, re]) => re.test(e.code))?.[0] ?? 'other';
}

const weight: Record<string, number> = { info: 0, warn: 1, error: 2 };

// report makes the report of a chain, which is in the order of time, a cause
// before its effects.
export function report(chain: readonly Event[]): Report {
  const depths = new Map<string, number>();
  const zero = chain.length > 0 ? Date.parse(chain[0]?.time ?? '') : 0;
  const steps = chain.map((event): Step => {
    const above = event.cause === undefined ? undefined : depths.get(event.cause);
    const depth = above === undefined ? 0 : above + 1;
    depths.set(event.id, depth);
    return { event, depth: Math.min(depth, 6), at: Date.parse(event.time) - zero, stage: stageOf(event) };
  });
  return {
    title: titleOf(chain),
    begun: chain[0]?.time ?? '',
    total: Math.max(0, ...steps.map((s) => s.at)),
    level: chain.reduce((worst, e) => ((weight[e.level] ?? 0) > (weight[worst] ?? 0) ? e.level : worst), 'info'),
    steps,
    spans: spansOf(steps),
  };
}

// titleOf is the first line that is more than information, or the first one.
function titleOf(chain: readonly Event[]): string {
  return (chain.find((e) => e.level !== 'info') ?? chain[0])?.text ?? '';
}

// spansOf works out how long each resource took, which the event of its end tells,
// and what of the whole went to finding out and to deciding.
function spansOf(steps: readonly Step[]): Span[] {
  const out: Span[] = [];
  const firstWork = steps.find((s) => s.stage === 'stop' || s.stage === 'start');
  if (firstWork) {
    const decided = steps.find((s) => s.stage === 'decide' && s.at <= firstWork.at);
    const first = steps[0];
    if (first && (decided ?? firstWork).at > 0) {
      out.push({ label: 'detect', node: first.event.node, stage: 'detect', from: 0, to: (decided ?? firstWork).at });
    }
    if (decided)
      out.push({ label: 'decide', node: decided.event.node, stage: 'decide', from: decided.at, to: firstWork.at });
  }
  for (const s of steps) {
    const resource = s.event.fields?.['resource'];
    const took = Number(s.event.fields?.['took_ms']);
    if (resource === undefined || !Number.isFinite(took) || (s.stage !== 'stop' && s.stage !== 'start')) continue;
    out.push({ label: resource, node: s.event.node, stage: s.stage, from: Math.max(0, s.at - took), to: s.at });
  }
  return out;
}
