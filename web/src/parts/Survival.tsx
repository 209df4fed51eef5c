import type { ReactNode } from 'react';
import type { components } from '../api/schema';
import { useText } from '../i18n/context';

type Setup = components['schemas']['Setup'];
type Outcome = components['schemas']['Outcome'];

const faults = ['owner', 'other', 'network', 'link', 'cut-off', 'third', 'third-link', 'paused'] as const;

// signs say what the colors say, for who does not see them.
const signs: Record<string, readonly [level: string, sign: string]> = {
  untouched: ['well', '✓'],
  takeover: ['well', '✓'],
  pause: ['odd', '!'],
  risk: ['odd', '!'],
  both: ['bad', '✕'],
  stops: ['bad', '✕'],
};

// Survival shows side by side what becomes of a group with each third thing. On a
// phone each fault is a card.
export function Survival({ setups }: { setups: readonly Setup[] }) {
  const { t, word } = useText();
  const name = (s: Setup) => {
    const is = word('setup.third', s.third);
    return s.chosen ? t('setup.table.chosen', { name: is }) : is;
  };
  const shown = faults.filter((f) => setups.some((s) => s.faults?.some((o) => o.fault === f)));
  const cell = (s: Setup, text: ReactNode) => (
    <td key={s.third} data-label={name(s)} className={s.chosen ? 'chosen' : undefined}>
      {text}
    </td>
  );
  return (
    <table className="table survival" aria-label={t('setup.table')}>
      <thead>
        <tr>
          <th scope="col">{t('setup.table.fault')}</th>
          {setups.map((s) => (
            <th key={s.third} scope="col" className={s.chosen ? 'chosen' : undefined}>
              {name(s)}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {shown.map((fault) => (
          <tr key={fault} data-key={fault}>
            <th scope="row">{word('setup.fault', fault)}</th>
            {setups.map((s) => {
              const is = s.faults?.find((o) => o.fault === fault);
              return cell(s, is ? <Becomes of={is} /> : '–');
            })}
          </tr>
        ))}
        <tr>
          <th scope="row">{t('setup.table.survives')}</th>
          {setups.map((s) => cell(s, s.survives))}
        </tr>
      </tbody>
    </table>
  );
}

function Becomes({ of }: { of: Outcome }) {
  const { t, word } = useText();
  const seconds = t('setup.seconds', { n: Number(((of.within ?? 0) / 1e9).toPrecision(3)) });
  const [level, sign] = signs[of.is] ?? ['odd', '?'];
  return (
    <span className={`outcome ${level}`}>
      <span aria-hidden="true">{sign}</span> {word('setup.outcome', of.is).replace('{time}', seconds)}
    </span>
  );
}
