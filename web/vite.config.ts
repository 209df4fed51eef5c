import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// The page is served by a daemon of the same version; `npx vite` alone shows it
// against the daemon that TASUKI names.
const daemon = process.env['TASUKI'] ?? 'https://127.0.0.1:29003';

// The page is shown in the fonts that the machine has: PatternFly's own, and its
// icons as a font, would be most of what a browser has to fetch.
const noFonts = {
  name: 'no-fonts',
  enforce: 'pre' as const,
  transform(code: string, id: string) {
    if (!id.includes('react-core/dist/styles/base.css')) return null;
    return code.replace(/@font-face\s*\{[^}]*\}/g, '').replace(/(?:\.pf-v6-pficon-[\w-]+:before,?\s*)+\{[^}]*\}/g, '');
  },
};

export default defineConfig({
  plugins: [noFonts, react()],
  build: {
    target: 'es2022',
    // The policy of the page allows no data: fonts or styles; every file is a file.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: Object.fromEntries(['/v1', '/session', '/ping'].map((p) => [p, { target: daemon, secure: false }])),
  },
  test: { include: ['src/**/*.test.ts', 'src/**/*.test.tsx'] },
});
