import { en, type Key } from './en';
import { ja } from './ja';

export type Language = 'en' | 'ja';
export type Values = Record<string, string | number>;
export type Translate = (key: Key, values?: Values) => string;

const texts: Record<Language, Record<Key, string>> = { en, ja };

// translator returns what gives the texts of a language.
export function translator(language: Language): Translate {
  const of = texts[language];
  return (key, values) => of[key].replace(/\{(\w+)\}/g, (all, name: string) => String(values?.[name] ?? all));
}

// isKey says whether a key that was put together is one.
export function isKey(key: string): key is Key {
  return Object.hasOwn(en, key);
}
