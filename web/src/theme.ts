// Dark or light: as the system says until somebody chooses.
const stored = 'tasuki-theme';
const dark = 'pf-v6-theme-dark';

export function applyTheme(): void {
  const kept = localStorage.getItem(stored);
  const isDark = kept ? kept === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.classList.toggle(dark, isDark);
}

export function toggleTheme(): void {
  const isDark = document.documentElement.classList.toggle(dark);
  localStorage.setItem(stored, isDark ? 'dark' : 'light');
}
