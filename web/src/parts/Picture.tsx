import { useLayoutEffect, useRef, useState, type MouseEvent } from 'react';
import { useNavigate } from 'react-router';
import type { Status } from '../api/types';
import { useText } from '../i18n/context';
import { topology, type NodeBox } from '../model/topology';

// Picture shows the cluster as it is wired: networks, nodes with what runs on
// them, and the two copies of each mirror disk.
export function Picture({ status }: { status: Status }) {
  const { t } = useText();
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const el = box.current;
    if (!el) return;
    const look = new ResizeObserver(() => setWidth(el.clientWidth));
    look.observe(el);
    setWidth(el.clientWidth);
    return () => look.disconnect();
  }, []);
  const p = width > 0 ? topology(status, width) : null;
  return (
    <div ref={box} className="picture">
      {p && (
        <svg
          width={p.width}
          height={p.height}
          role="group"
          aria-label={t('overview.topology.label', {
            nodes: p.nodes.length,
            groups: (status.groups ?? []).length,
            networks: new Set(p.buses.map((b) => b.network)).size,
          })}
        >
          {p.buses.map((b) => (
            <g key={`${b.network}/${b.y}`}>
              <line x1={b.x1} x2={b.x2} y1={b.y} y2={b.y} className={b.lost > 0 ? 'bus lost' : 'bus'} />
              <text x={b.x1} y={b.y - 4} className={b.lost > 0 ? 'alarm' : 'small'}>
                {t('overview.network', { n: b.network })}
                {b.lost > 0 ? ` · ${t('overview.lost', { n: b.lost })}` : ''}
              </text>
            </g>
          ))}
          {p.mirrors.map((m) => (
            <g key={m.name}>
              <path d={m.path} className={`mirror ${m.state}`} />
              <text x={m.x} y={m.y - 4} textAnchor="middle" className="small">
                {m.text}
              </text>
            </g>
          ))}
          {p.nodes.map((n) => (
            <NodeShape key={n.name} n={n} />
          ))}
        </svg>
      )}
    </div>
  );
}

function NodeShape({ n }: { n: NodeBox }) {
  const { t, word } = useText();
  const navigate = useNavigate();
  const to = `/nodes/${n.name}`;
  const open = (e: MouseEvent) => {
    if (e.ctrlKey || e.metaKey || e.shiftKey || e.button !== 0) return;
    e.preventDefault();
    void navigate(to);
  };
  const notes = [n.witness ? t('overview.witness') : '', n.leader ? t('overview.leader') : ''].filter((x) => x !== '');
  const groups = n.groups.map((g) => `${g.name} ${word('phase', g.phase)}`);
  const label = [
    n.name,
    word('node', n.state),
    ...notes,
    ...groups,
    n.bad > 0 ? t('overview.badmonitors', { n: n.bad }) : '',
  ]
    .filter((x) => x !== '')
    .join(', ');
  const room = Math.floor((n.w - 44) / 7.2);
  return (
    <g>
      {n.wires.map((w) => (
        <g key={w.network} className={w.up ? 'wire' : 'wire lost'}>
          <title>{w.address}</title>
          <line x1={w.x} x2={w.x} y1={w.from} y2={n.y} />
          <circle cx={w.x} cy={w.from} r="4" />
        </g>
      ))}
      <a href={to} onClick={open} aria-label={label}>
        <rect x={n.x} y={n.y} width={n.w} height={n.h} rx="8" className={`node ${n.state}`} />
        <circle cx={n.x + 16} cy={n.y + 18} r="5" className={`lamp ${n.state}`} />
        <text x={n.x + 28} y={n.y + 22} className="name">
          {cut(n.name, room)}
        </text>
        {n.bad > 0 && (
          <text x={n.x + n.w - 12} y={n.y + 22} textAnchor="end" className="alarm">
            ⚠ {n.bad}
          </text>
        )}
        <text x={n.x + 28} y={n.y + 38} className="small">
          {cut([word('node', n.state), ...notes].join(' · '), room)}
        </text>
        {n.groups.map((g, i) => (
          <g key={g.name}>
            <rect
              x={n.x + 10}
              y={n.y + 46 + i * 24}
              width={n.w - 20}
              height="20"
              rx="4"
              className={`chip ${g.phase}`}
            />
            <text x={n.x + 18} y={n.y + 60 + i * 24} className="chip-text">
              {cut(g.name, room)}
            </text>
          </g>
        ))}
        {(n.more > 0 || (n.groups.length === 0 && !n.witness)) && (
          <text x={n.x + 18} y={n.y + 60 + n.groups.length * 24} className="small">
            {n.more > 0 ? t('overview.more', { n: n.more }) : t('overview.nogroups')}
          </text>
        )}
      </a>
    </g>
  );
}

function cut(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}
