import { expect, test } from 'vitest';
import type { Event } from '../api/types';
import { report, stageOf } from './chain';

const at = (ms: number) => new Date(Date.UTC(2026, 0, 1) + ms).toISOString();

function event(id: string, ms: number, code: string, text: string, more: Partial<Event> = {}): Event {
  return { id, time: at(ms), node: id.split('/')[0] ?? '', level: 'info', module: 'rc', code, text, ...more };
}

// A pulled cable, as the log of both nodes tells it.
const chain: Event[] = [
  event('H/1', 0, 'monitor-bad', 'Monitor miiw1 is bad.', { level: 'error' }),
  event('H/2', 40, 'request-sent', 'Asked VMcluster.', { cause: 'H/1' }),
  event('A/1', 50, 'group-stop-begun', 'Stopping group failover has started.', { cause: 'H/2' }),
  event('A/2', 90, 'resource-stopped', 'Resource exec has been stopped.', {
    cause: 'A/1',
    fields: { resource: 'exec', took_ms: '30' },
  }),
  event('A/3', 100, 'resource-stopped', 'Resource fip has been stopped.', {
    cause: 'A/1',
    fields: { resource: 'fip', took_ms: '5' },
  }),
  event('B/1', 120, 'group-start-begun', 'Activating group failover has started.', { cause: 'A/1' }),
  event('B/2', 160, 'resource-started', 'Resource fip has been started.', {
    cause: 'B/1',
    fields: { resource: 'fip', took_ms: '25' },
  }),
];

test('a report is the chain in stages, with the time of each resource', () => {
  const r = report(chain);
  expect(r.title).toBe('Monitor miiw1 is bad.');
  expect(r.level).toBe('error');
  expect(r.total).toBe(160);
  expect(r.steps.map((s) => s.stage)).toEqual(['detect', 'decide', 'stop', 'stop', 'stop', 'start', 'start']);
  expect(r.steps.map((s) => s.depth)).toEqual([0, 1, 2, 3, 3, 3, 4]);
  expect(r.spans).toEqual([
    { label: 'detect', node: 'H', stage: 'detect', from: 0, to: 40 },
    { label: 'decide', node: 'H', stage: 'decide', from: 40, to: 50 },
    { label: 'exec', node: 'A', stage: 'stop', from: 60, to: 90 },
    { label: 'fip', node: 'A', stage: 'stop', from: 95, to: 100 },
    { label: 'fip', node: 'B', stage: 'start', from: 135, to: 160 },
  ]);
});

test('a chain whose first event is not held begins with what there is', () => {
  const r = report(chain.slice(1));
  expect(r.steps[0]?.depth).toBe(0);
  expect(report([])).toMatchObject({ title: '', total: 0, steps: [], spans: [] });
});

test.each([
  ['group-failover-begun', 'decide'],
  ['group-stopped-local', 'stop'],
  ['resource-not-stopped', 'stop'],
  ['resource-failed', 'detect'],
  ['node-silent', 'detect'],
  ['config-applied', 'other'],
])('%s belongs to %s', (code, stage) => expect(stageOf(event('A/1', 0, code, ''))).toBe(stage));
