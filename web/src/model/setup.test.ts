import { expect, test } from 'vitest';
import { answersOf, formOf, sharedOption, stepOf, thirds, withNetworks, withNode, withoutNode } from './setup';

const one = { cluster: 'web', nodes: [{ name: 'alpha', addresses: ['192.168.10.1', '10.0.0.1'] }] };

test('a new cluster begins with its node, and a second one to be named', () => {
  const f = formOf(one);
  expect(f.nodes).toEqual([
    { name: 'alpha', addresses: ['192.168.10.1', '10.0.0.1'] },
    { name: '', addresses: ['', ''] },
  ]);
  expect([f.kind, f.grouped, f.group]).toEqual(['', false, 'web']);
  // what was not typed is not asked
  expect(answersOf(f)).toEqual({ ...one, third: {} });
});

test('what the file says comes back as it was', () => {
  const a = {
    cluster: 'web',
    nodes: [
      { name: 'a', addresses: ['10.0.0.1'] },
      { name: 'b', addresses: ['10.0.0.2'] },
    ],
    third: {
      kind: 'fence' as const,
      fences: [
        { node: 'a', agent: 'fence_x', plug: '', options: { ip: '10.1.0.1', lanplus: '1' } },
        { node: 'b', agent: 'fence_x', plug: '4', options: { ip: '10.1.0.2', lanplus: '1' } },
      ],
    },
    group: {
      name: 'g',
      address: { address: '10.0.0.9', prefix: 24, device: 'eth0' },
      mirror: { data: '/dev/a', meta: '/dev/b', mount: '/data', fs: 'xfs' },
      program: { start: 's', stop: 't' },
    },
  };
  expect(answersOf(formOf(a))).toEqual(a);
});

test('third things ask for what is theirs only', () => {
  const f = { ...formOf(one), third: { name: 'w', addresses: [' 10.0.0.3 ', ''] }, targets: '10.0.0.254, ,10.0.0.253' };
  f.nodes[1] = { name: 'beta', addresses: ['192.168.10.2', ''] };
  expect(answersOf({ ...f, kind: 'witness' }).third).toEqual({
    kind: 'witness',
    node: { name: 'w', addresses: ['10.0.0.3', ''] },
  });
  expect(answersOf({ ...f, kind: 'ping' }).third).toEqual({ kind: 'ping', targets: ['10.0.0.254', '10.0.0.253'] });
  const fenced = sharedOption({ ...f, kind: 'fence' }, 'username', 'u');
  expect(answersOf(fenced).third?.fences?.map((x) => x.options)).toEqual([{ username: 'u' }, { username: 'u' }]);
  expect(withNode(fenced).fences[2]).toEqual({ plug: '', options: { username: 'u' } });
});

test('nodes and networks come and go', () => {
  const f = { ...formOf(one), kind: 'ping' as const };
  const more = withNode(withNetworks(f, 3));
  expect(more.nodes.map((n) => n.addresses.length)).toEqual([3, 3, 3]);
  expect(more.third.addresses.length).toBe(3);
  expect(more.kind).toBe(''); // ping is for two
  expect(withoutNode(more, 1).nodes.length).toBe(2);
  expect(thirds(1)).toEqual([]);
  expect(thirds(3)).not.toContain('ping');
});

test('each answer has its step', () => {
  expect(['cluster', 'nodes[1].addresses[0]', 'third.fences[0].agent', 'group.address.device', ''].map(stepOf)).toEqual(
    ['nodes', 'nodes', 'third', 'group', 'file'],
  );
});
