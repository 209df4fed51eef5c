import {
  DescriptionList,
  DescriptionListDescription,
  DescriptionListGroup,
  DescriptionListTerm,
} from '@patternfly/react-core';
import { useQuery } from '@tanstack/react-query';
import { useEffect } from 'react';
import { useParams } from 'react-router';
import { api, answer } from '../api/client';
import { useView } from '../context';
import { useText } from '../i18n/context';
import { report, type Report as Told, type Span } from '../model/chain';
import { clock, day, span } from '../model/format';
import { Loading } from '../parts/Loading';
import { State } from '../parts/State';
import { Trouble } from '../parts/Trouble';
import { Part, View } from '../parts/View';

// Report tells the story of an event from its first cause to its last effect. It
// grows while the story goes on.
export default function Report() {
  const { t } = useText();
  const { node = '', number = '' } = useParams();
  const id = `${node}/${number}`;
  const { events } = useView();
  const newest = events[events.length - 1]?.id;
  const { data, error, refetch } = useQuery({
    queryKey: ['explain', id],
    queryFn: () => answer(api.GET('/v1/explain', { params: { query: { id } } })),
  });
  useEffect(() => void refetch(), [newest, refetch]);
  if (error) return <Trouble error={error} />;
  if (!data) return <Loading />;
  const r = report(data);
  return (
    <View title={t('report.title')} state={<State of="level" value={r.level} />}>
      <Part title={r.title}>
        <DescriptionList isHorizontal isCompact>
          <DescriptionListGroup>
            <DescriptionListTerm>{t('report.begun')}</DescriptionListTerm>
            <DescriptionListDescription>
              {day(r.begun)} {clock(r.begun)}
            </DescriptionListDescription>
          </DescriptionListGroup>
          <DescriptionListGroup>
            <DescriptionListTerm>{t('report.took')}</DescriptionListTerm>
            <DescriptionListDescription>{span(r.total)}</DescriptionListDescription>
          </DescriptionListGroup>
        </DescriptionList>
      </Part>
      {r.spans.length > 0 && (
        <Part title={t('report.timeline')}>
          <div className="scroll">
            <Timeline r={r} />
          </div>
        </Part>
      )}
      <Part title={t('report.story')}>
        <ol className="story">
          {r.steps.map((step, i) => {
            const why = step.event.fields?.['why'];
            const told =
              why !== undefined && why !== '' && !r.steps.slice(0, i).some((s) => s.event.fields?.['why'] === why);
            return (
              <li
                key={step.event.id}
                data-depth={step.depth}
                className={`${step.stage} ${step.event.id === id ? 'this' : ''}`}
              >
                <span className="after">+{span(step.at)}</span>
                <span className="stage">{step.stage !== 'other' && t(`report.${step.stage}`)}</span>
                <span className="where">{step.event.node}</span>
                <span className="what">
                  {step.event.level !== 'info' && <State of="level" value={step.event.level} />} {step.event.text}
                  {told && !step.event.text.includes(why) && <em> {t('report.why', { why })}</em>}
                </span>
              </li>
            );
          })}
        </ol>
      </Part>
    </View>
  );
}

const rowHeight = 26;
const labels = 190;

// Timeline is a bar for each piece of work, drawn to scale.
function Timeline({ r }: { r: Told }) {
  const { t } = useText();
  const end = Math.max(1, ...r.spans.map((s) => s.to));
  const width = 1000;
  const x = (ms: number) => labels + ((width - labels - 90) * ms) / end;
  const name = (s: Span) => (s.label === s.stage ? t(`report.${s.stage}`) : `${t(`report.${s.stage}`)} ${s.label}`);
  return (
    <svg
      className="timeline"
      viewBox={`0 0 ${width} ${r.spans.length * rowHeight + 8}`}
      role="img"
      aria-label={r.spans.map((s) => `${name(s)} ${s.node}: ${span(s.to - s.from)}`).join(', ')}
    >
      {r.spans.map((s, i) => (
        <g key={`${s.label}/${s.node}/${s.from}/${i}`} transform={`translate(0 ${i * rowHeight})`}>
          <text x="0" y="17">
            {name(s)} · {s.node}
          </text>
          <rect x={x(s.from)} y="5" width={Math.max(2, x(s.to) - x(s.from))} height="16" rx="3" className={s.stage} />
          <text x={Math.max(x(s.to), x(s.from) + 2) + 6} y="17" className="took">
            {span(s.to - s.from)}
          </text>
        </g>
      ))}
    </svg>
  );
}
