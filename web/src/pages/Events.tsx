import { useMemo, useState } from 'react';
import { useStatus, useView } from '../context';
import { useText } from '../i18n/context';
import { chosen } from '../model/events';
import { EventTable } from '../parts/EventTable';
import { ChoiceFilter, Filters, TextFilter } from '../parts/Filter';
import { View } from '../parts/View';

export default function Events() {
  const { t } = useText();
  const s = useStatus();
  const { events } = useView();
  const [text, setText] = useState('');
  const [level, setLevel] = useState('');
  const [node, setNode] = useState('');
  const [group, setGroup] = useState('');
  const shown = useMemo(() => chosen(events, { text, level, node, group }), [events, text, level, node, group]);
  const names = (of: readonly { name: string }[] | null) => (of ?? []).map((x) => [x.name, x.name] as const);
  return (
    <View
      title={t('nav.events')}
      state={<span className="quiet">{t('events.count', { shown: shown.length, all: events.length })}</span>}
    >
      <Filters>
        <TextFilter label={t('events.text')} value={text} change={setText} />
        <ChoiceFilter
          label={t('events.level')}
          value={level}
          change={setLevel}
          options={[
            ['warn', t('level.warn')],
            ['error', t('level.error')],
          ]}
        />
        <ChoiceFilter label={t('common.node')} value={node} change={setNode} options={names(s.nodes)} />
        <ChoiceFilter label={t('common.group')} value={group} change={setGroup} options={names(s.groups)} />
      </Filters>
      <EventTable events={shown} />
    </View>
  );
}
