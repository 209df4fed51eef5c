import { createContext, use, useEffect, useMemo, useState, type ReactNode } from 'react';
import { isKey, translator, type Language, type Translate } from './text';

interface Languages {
  t: Translate;
  // word is the text of PREFIX.VALUE, or the value where the page is older than
  // the word.
  word: (prefix: string, value: string) => string;
  language: Language;
  change: (to: Language) => void;
}

const Context = createContext<Languages | null>(null);
const stored = 'tasuki-language';

function first(): Language {
  const kept = localStorage.getItem(stored);
  if (kept === 'en' || kept === 'ja') return kept;
  return navigator.language.startsWith('ja') ? 'ja' : 'en';
}

export function Texts({ children }: { children: ReactNode }) {
  const [language, change] = useState(first);
  useEffect(() => {
    document.documentElement.lang = language;
    localStorage.setItem(stored, language);
  }, [language]);
  const value = useMemo(() => {
    const t = translator(language);
    const word = (prefix: string, of: string) => {
      const key = `${prefix}.${of}`;
      return isKey(key) ? t(key) : of;
    };
    return { t, word, language, change };
  }, [language]);
  return <Context value={value}>{children}</Context>;
}

export function useText(): Languages {
  const value = use(Context);
  if (!value) throw new Error('no language above');
  return value;
}
