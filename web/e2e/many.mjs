// A big cluster: how long the first paint takes, what goes over the wire, and
// whether everything can be found.
import { accessible, expect, measure, open, run, shot, signIn, step } from './browser.mjs';

await run(async () => {
  const page = await open();
  await step('sign in to a cluster of 32 nodes, 500 groups, 2,000 monitors', () => signIn(page, process.env.URL));
  await page.getByRole('heading', { name: 'Topology' }).waitFor();

  await step('load it again, with nothing in the cache', async () => {
    const cdp = await page.context().newCDPSession(page);
    await cdp.send('Network.enable');
    await cdp.send('Network.setCacheDisabled', { cacheDisabled: true });
    let wire = 0;
    cdp.on('Network.loadingFinished', (e) => (wire += e.encodedDataLength));
    let painted = Infinity; // the best of three: a busy machine says nothing about the page
    for (let n = 0; n < 3 && painted >= 1000; n++) {
      wire = 0;
      await page.goto(process.env.URL);
      await page.locator('.picture a').first().waitFor();
      const [paint, whole] = await page.evaluate(() => [
        performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? Infinity,
        performance.now(),
      ]);
      painted = Math.min(painted, paint);
      console.log(
        `           first paint ${paint.toFixed(0)} ms, all there ${whole.toFixed(0)} ms, ${(wire / 1024).toFixed(0)} KiB with the data`,
      );
    }
    expect(!measure || painted < 1000, `the first paint took ${painted} ms`);
    expect((await page.locator('.picture a').count()) === 32, 'a node is missing in the picture');
  });
  await shot(page, 'many-overview');
  await accessible(page, 'many nodes');

  await step('find a group, a monitor, a node', async () => {
    await page.getByRole('link', { name: 'Groups', exact: true }).click();
    await page.getByText('Page 1 of 20, 500 in all').waitFor();
    await page.getByLabel('Name').fill('g499');
    await page.getByRole('link', { name: 'g499' }).click();
    await page.getByRole('heading', { name: 'g499', level: 1 }).waitFor();
    await page.getByRole('link', { name: 'Monitors', exact: true }).click();
    await page.getByLabel('Name').fill('m1999');
    await page.getByRole('cell', { name: 'm1999', exact: true }).waitFor();
    await page.getByRole('link', { name: 'Nodes', exact: true }).click();
    await page.getByRole('link', { name: 'n31', exact: true }).click();
    await page.getByRole('heading', { name: 'n31', level: 1 }).waitFor();
  });
});
