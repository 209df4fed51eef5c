import { Link } from 'react-router';
import type { Group, Node, SimulateRequest } from '../api/types';
import { useText } from '../i18n/context';
import { question } from '../model/foreseen';
import { Part } from './View';

type Asked = readonly [text: string, q: SimulateRequest];

// Questions are links to what would happen.
function Questions({ list }: { list: readonly Asked[] }) {
  const { t } = useText();
  return (
    <Part title={t('whatif.links')}>
      <ul className="inline">
        {list.map(([text, q]) => (
          <li key={text}>
            <Link to={`/whatif?${question(q)}`}>{text}</Link>
          </li>
        ))}
      </ul>
    </Part>
  );
}

export function WhatIfNode({ node: n }: { node: Node }) {
  const { t } = useText();
  return (
    <Questions
      list={[
        [t('whatif.killed', { node: n.name }), { kill: [n.name] }],
        [t('whatif.left'), { leave: [n.name] }],
        ...(n.addresses ?? []).map((a, i): Asked => {
          const number = i + 1;
          return [t('whatif.cut', { n: number, address: a.address }), { pull: [`${n.name}:${number}`] }];
        }),
      ]}
    />
  );
}

const most = 4; // of a kind

export function WhatIfGroup({ group: g }: { group: Group }) {
  const { t } = useText();
  const list: Asked[] = (g.nodes ?? [])
    .filter((n) => n !== g.owner)
    .slice(0, most)
    .map((n) => [t('whatif.moved', { node: n }), { move: `${g.name}=${n}` }]);
  if (g.owner) {
    list.push([t('whatif.killed', { node: g.owner }), { kill: [g.owner] }]);
    for (const r of (g.resources ?? []).slice(0, most))
      list.push([t('whatif.failed', { name: r.name }), { fail: r.name }]);
  }
  return <Questions list={list} />;
}
