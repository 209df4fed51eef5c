// Puts what vite has built where the Go program embeds it, each file compressed
// twice. Says how much a browser has to fetch, and fails where that is too much.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const from = 'dist';
const to = '../internal/console/dist';
const most = 350 << 10; // bytes over the wire, of everything, compressed by gzip

for (const old of readdirSync(to)) {
  if (old !== '.keep') rmSync(join(to, old), { recursive: true });
}
let wire = 0;
let best = 0;
for (const file of readdirSync(from, { recursive: true, withFileTypes: true })) {
  if (!file.isFile()) continue;
  const path = join(file.parentPath, file.name);
  const name = join(to, path.slice(from.length + 1));
  const data = readFileSync(path);
  const gzip = gzipSync(data, { level: 9 });
  const brotli = brotliCompressSync(data, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: data.length },
  });
  mkdirSync(dirname(name), { recursive: true });
  writeFileSync(`${name}.gz`, gzip);
  writeFileSync(`${name}.br`, brotli);
  wire += gzip.length;
  best += brotli.length;
}
const kib = (n) => `${(n / 1024).toFixed(1)} KiB`;
console.log(`console: ${kib(wire)} by gzip, ${kib(best)} by brotli`);
if (wire > most) {
  console.error(`error: that is more than ${kib(most)}`);
  process.exit(1);
}
