// What the browser tests share: a browser, pages whose complaints are kept, and
// steps that say what they do. A test is driven by a Go test, which tells it where
// everything is by the environment.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { AxeBuilder } from '@axe-core/playwright';
import { chromium } from 'playwright-core';

// measure says whether figures count. Where tests run beside others they do not, and
// everything may take longer.
export const measure = process.env.MEASURE !== '';
const patience = measure ? 15_000 : 60_000;

const out = process.env.OUT ?? 'out';
mkdirSync(out, { recursive: true });

export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
  ...(process.env.PROXY ? { proxy: { server: process.env.PROXY, bypass: '<-loopback>' } } : {}),
});

const complaints = [];

// open opens a page of its own. What the browser complains about is a failure,
// unless it matches what is expected.
export async function open(options = {}, expected = []) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, locale: 'en-GB', ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  const told = (text) => {
    if (!expected.some((re) => re.test(text))) complaints.push(text);
  };
  page.on('console', (m) => {
    if (m.type() === 'error' || m.type() === 'warning') told(`${m.text()} (${m.location().url})`);
  });
  page.on('pageerror', (e) => told(String(e)));
  page.on('request', (r) => {
    const url = new URL(r.url());
    if (!/^(data|blob):/.test(r.url()) && !/^(10\.|127\.|192\.168\.)/.test(url.hostname))
      told(`loaded from outside: ${r.url()}`);
  });
  return page;
}

export function expect(ok, text) {
  if (!ok) throw new Error(text);
}

// step runs one part of a test and says how long it took.
export async function step(name, f) {
  const begun = Date.now();
  const got = await f();
  console.log(`${String(Date.now() - begun).padStart(6)} ms  ${name}`);
  return got;
}

// shot takes a picture of all of a page, of which a part scrolls.
export async function shot(page, name) {
  const size = page.viewportSize();
  const more = await page.evaluate(() => {
    const main = document.getElementById('main');
    return main ? main.scrollHeight - main.clientHeight : 0;
  });
  if (more > 0) await page.setViewportSize({ width: size.width, height: size.height + more });
  await page.screenshot({ path: join(out, `${name}.png`) });
  if (more > 0) await page.setViewportSize(size);
}

// accessible fails where axe finds what keeps people from using the page. The page
// has no frames, so the mode without a window of its own is good, and much faster.
export async function accessible(page, name) {
  const found = await new AxeBuilder({ page }).setLegacyMode().analyze();
  for (const v of found.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')) {
    complaints.push(
      `axe, ${name}: ${v.id} (${v.impact}): ${v.help}: ${v.nodes
        .slice(0, 3)
        .map((n) => n.html.slice(0, 160))
        .join(' | ')}`,
    );
  }
}

export async function signIn(page, url, name = process.env.NAME, password = process.env.PASSWORD) {
  await page.goto(url);
  await page.getByLabel('User name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

// lab asks the Go test to do something with the machines.
export async function lab(...argv) {
  const r = await fetch(`${process.env.CONTROL}/${argv.map(encodeURIComponent).join('/')}`, { method: 'POST' });
  if (!r.ok) throw new Error(`${argv.join(' ')}: ${await r.text()}`);
  return r.text();
}

// run runs a test and ends the process with what came of it.
export async function run(test) {
  try {
    await test();
  } catch (e) {
    complaints.push(e.stack ?? String(e));
    for (const [i, p] of browser
      .contexts()
      .flatMap((c) => c.pages())
      .entries())
      await shot(p, `failed-${i}`).catch(() => {});
  }
  await browser.close();
  for (const c of complaints) console.error(`error: ${c}`);
  process.exit(complaints.length > 0 ? 1 : 0);
}
