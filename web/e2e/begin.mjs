// From one node to a group that fails over, with real machines: the wizard, the
// editor, the token, and then both nodes are up.
import { accessible, expect, lab, open, run, shot, signIn, step } from './browser.mjs';

await run(async () => {
  const page = await open({ viewport: { width: 1440, height: 1200 } });
  const next = () => page.getByRole('button', { name: 'Next', exact: true }).click();
  await signIn(page, process.env.URL);
  await page.getByRole('link', { name: 'Open the set-up wizard' }).click();
  await step('answer', async () => {
    await page.getByLabel('Name', { exact: true }).last().fill('CLP-2');
    await page.getByLabel('Address in network 1').last().fill('192.168.10.2');
    await page.getByLabel('Address in network 2').last().fill('10.2.102.52');
    await next();
    await page.getByRole('radio', { name: 'Ping targets', exact: true }).check();
    await page.getByLabel(/Addresses that answer to ping/).fill('10.2.102.200');
    await page.locator('th.chosen', { hasText: 'Ping targets' }).waitFor();
    await next();
    await page.getByLabel('Set up a group now').check();
    await page.getByLabel('Name of the group').fill('failover');
    await page.getByLabel('Address', { exact: true }).fill('10.2.102.50');
    await page.getByLabel('NIC (may be left out)').fill('eth0');
    await next();
    await page.getByRole('button', { name: 'Put into the editor' }).click();
  });
  await step('apply', async () => {
    await page.getByText('The file can be applied.').waitFor();
    await page.locator('.view-head').getByRole('button', { name: 'Apply', exact: true }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Apply', exact: true }).click();
    await page.getByRole('row', { name: /set-up wizard/ }).waitFor();
    expect((await page.getByText('The file can be applied.').count()) === 0, 'what is in force is to be applied again');
  });
  await page.getByText('Not seen yet: CLP-2').waitFor(); // here too, because here it was applied
  await page.getByRole('link', { name: 'Overview', exact: true }).click();
  await step('the other machine joins with the command that is shown', async () => {
    await page.getByRole('button', { name: 'Make a token for CLP-2' }).click();
    const command = await page.locator('input[value^="tasuki join "]').inputValue();
    await shot(page, 'begin-token');
    await lab('CLP-2', command);
    await page.getByText('2 of 2 nodes up · 1 of 1 groups online').waitFor();
    expect((await page.getByText('Let the other machines join').count()) === 0, 'it is still to join');
    await page.getByText('One more fault can be survived').waitFor();
  });
  await shot(page, 'begin-end');
  await step('asked again, the wizard knows the answers', async () => {
    await page.getByRole('link', { name: 'Configuration', exact: true }).click();
    await page.getByText('Nothing has been changed.').waitFor(); // and not the text of the wizard still
    await page.getByRole('link', { name: 'Set-up wizard' }).click();
    await page.getByRole('heading', { level: 2, name: 'Step 1 of 4: Nodes' }).waitFor();
    expect((await page.getByLabel('Name', { exact: true }).last().inputValue()) === 'CLP-2', 'CLP-2 is not there');
    expect((await page.getByText('It would be gone').count()) === 0, 'something of its own file would be gone');
    await next();
    await page.locator('th.chosen', { hasText: 'Ping targets' }).waitFor();
    await next();
    expect((await page.getByLabel('Name of the group').inputValue()) === 'failover', 'the group is not there');
    await page.getByRole('link', { name: 'Overview', exact: true }).click();
  });
  await accessible(page, 'a cluster that was set up');
});
