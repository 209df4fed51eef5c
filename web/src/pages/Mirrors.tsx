import { useStatus } from '../context';
import { useText } from '../i18n/context';
import { MirrorCard } from '../parts/MirrorCard';
import { View } from '../parts/View';

export default function Mirrors() {
  const { t } = useText();
  const mirrors = useStatus().mirrors ?? [];
  return (
    <View title={t('nav.mirrors')}>
      {mirrors.length === 0 ? (
        <p className="quiet">{t('mirror.none')}</p>
      ) : (
        mirrors.map((m) => <MirrorCard key={m.name} mirror={m} />)
      )}
    </View>
  );
}
