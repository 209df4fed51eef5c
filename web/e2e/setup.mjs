// The set-up wizard: from a new cluster to a file in the editor, by keyboard, and
// on a phone.
import { accessible, expect, lab, open, run, shot, signIn, step } from './browser.mjs';

const url = process.env.URL;
const h2 = (page, text) => page.getByRole('heading', { level: 2, name: text }).waitFor();
const next = (page) => page.getByRole('button', { name: 'Next', exact: true }).click();
const cell = (page, fault, kind) => page.locator(`tr[data-key="${fault}"] td[data-label^="${kind}"]`).innerText();
const text = (page) => page.getByLabel('The cluster file', { exact: true }).innerText();

const wide = async (page, name) => {
  const by = await page.evaluate(() => {
    const main = document.getElementById('main');
    return Math.max(main.scrollWidth - main.clientWidth, document.documentElement.scrollWidth - innerWidth);
  });
  expect(by <= 0, `${name} is ${by} pixels too wide`);
};

// typed fills in a field by the keyboard alone: it must have the focus already.
async function typed(page, label, value) {
  const field = page.getByLabel(label, { exact: true }).last();
  await page.waitForFunction((id) => document.activeElement?.id === id, await field.getAttribute('id'));
  await page.keyboard.type(value);
  await page.keyboard.press('Tab');
}

async function byKeyboard(page) {
  await step('a new cluster offers the wizard', async () => {
    await page.getByText('This cluster is new').waitFor();
    await shot(page, 'setup-offer');
    await page.getByRole('link', { name: 'Open the set-up wizard' }).focus();
    await page.keyboard.press('Enter');
    await h2(page, 'Step 1 of 4: Nodes');
  });
  await step('name the nodes, with the keyboard alone', async () => {
    const names = page.getByLabel('Name', { exact: true });
    expect((await names.first().inputValue()) === 'alpha', 'this node is not there already');
    expect((await page.getByLabel('Address in network 2').first().inputValue()) === '10.0.0.1', 'nor its addresses');
    await names.last().focus();
    await typed(page, 'Name', 'beta');
    await typed(page, 'Address in network 1', '192.168.10.1');
    await typed(page, 'Address in network 2', '10.0.0.2');
    await page.getByLabel('Name', { exact: true }).last().press('Enter');
  });
  await step('what is wrong is told where it is', async () => {
    const field = page.getByLabel('Address in network 1').last();
    await page.waitForFunction((id) => document.activeElement?.id === id, await field.getAttribute('id'));
    expect((await field.getAttribute('aria-invalid')) === 'true', 'the field is not marked');
    const why = await page.locator('[id="nodes[1].addresses[0]-why"]').innerText();
    expect(/it is the address of node alpha; give everyone/.test(why), why);
    await shot(page, 'setup-refused');
    await accessible(page, 'refused answers');
    await field.fill('192.168.10.2');
    await field.press('Enter');
    await h2(page, 'Step 2 of 4: The third thing');
    const at = await page.evaluate(() => document.activeElement?.textContent);
    expect(/Step 2 of 4/.test(at), `the focus is at ${at}`);
  });
}

async function third(page) {
  await step('the table says what each third thing buys', async () => {
    await page.locator('tr[data-key="link"]').waitFor();
    expect(/both run it/.test(await cell(page, 'link', 'Nothing')), 'nothing third, and the nodes lose each other');
    expect(/goes on/.test(await cell(page, 'link', 'Witness')), 'a witness, and the nodes lose each other');
    expect(/moves, ≤ 1.2 s/.test(await cell(page, 'owner', 'Witness')), 'a witness, and a node dies');
    expect(/stops/.test(await cell(page, 'third-link', 'Witness')), 'the witness fails first');
    await shot(page, 'setup-table');
    await accessible(page, 'the table');
  });
  await step('it is to be chosen', async () => {
    await next(page);
    await page.getByText('two nodes alone cannot tell which of them is cut off').waitFor();
    for (const [kind, label] of [
      ['Fence', 'Fence agent'],
      ['Ping targets', 'Addresses that answer to ping, separated by commas'],
    ]) {
      await page.getByRole('radio', { name: kind, exact: true }).check();
      await page.getByLabel(label, { exact: true }).waitFor();
      await page.locator('th.chosen', { hasText: kind }).waitFor();
      await shot(page, `setup-${kind.split(' ')[0].toLowerCase()}`);
      await accessible(page, kind);
    }
    await page.getByRole('radio', { name: 'Witness', exact: true }).check();
    await page.getByLabel('Name', { exact: true }).fill('gamma');
    await page.getByLabel('Address in network 1').fill('192.168.10.3');
    await page.getByLabel('Address in network 2').fill('10.0.0.3');
    await page.locator('th.chosen', { hasText: 'Witness (chosen)' }).waitFor();
    await next(page);
    await h2(page, 'Step 3 of 4: What fails over');
  });
}

async function group(page) {
  await step('a group with an address and a program', async () => {
    await page.getByLabel('Set up a group now').check();
    await page.getByLabel('Address', { exact: true }).fill('10.0.0.10');
    await page.getByLabel('Prefix length (may be left out)').fill('24');
    await page.getByLabel('NIC (may be left out)').fill('eth1');
    await page.getByRole('checkbox', { name: /start and a stop script/ }).check();
    await page.getByLabel('Start script, or program').fill('/usr/local/sbin/web-server');
    await shot(page, 'setup-group');
    await accessible(page, 'a group');
    await next(page);
    await h2(page, 'Step 4 of 4: The cluster file');
  });
}

async function file(page) {
  await step('the file goes into the editor', async () => {
    const made = await text(page);
    for (const line of [
      'gamma: {addresses: [192.168.10.3, 10.0.0.3], witness: true}',
      'address: 10.0.0.10',
      'mode: async',
    ])
      expect(made.includes(line), `${line} is not in\n${made}`);
    await page.getByText('Nothing in it is risky.').waitFor();
    await page.locator('input[value="tasuki witness join TOKEN --node gamma"]').waitFor();
    await page.locator('input[value="tasuki join TOKEN --node beta"]').waitFor();
    await shot(page, 'setup-file');
    await accessible(page, 'the file');
    await page.getByRole('button', { name: 'Back', exact: true }).click();
    expect((await page.getByLabel('Address', { exact: true }).inputValue()) === '10.0.0.10', 'back, and it is gone');
    await next(page);
    await page.getByRole('button', { name: 'Put into the editor' }).click();
    const editor = page.getByLabel('Cluster file', { exact: true });
    await editor.waitFor();
    expect((await editor.inputValue()).trim() === made.trim(), 'the editor has another text');
    await page.getByText('The file can be applied.').waitFor();
    expect((await page.getByLabel('Note for the history').inputValue()) === 'set-up wizard', 'no note');
    await page.getByRole('button', { name: 'Apply', exact: true }).waitFor();
    await shot(page, 'setup-editor');
    await page.getByRole('button', { name: 'Discard changes' }).click();
    await page.getByRole('link', { name: 'Set-up wizard' }).click();
    await h2(page, 'Step 1 of 4: Nodes');
  });
}

async function join(page) {
  await step('the overview makes tokens for who is still missing', async () => {
    await lab('joined');
    await page.getByRole('link', { name: 'Overview', exact: true }).click();
    await page.getByText('Not seen yet: beta, gamma').waitFor();
    expect((await page.getByText('This cluster is new').count()) === 0, 'it is new still');
    await page.getByRole('button', { name: 'Make a token for gamma' }).click();
    await page.locator('input[value^="tasuki witness join "][value$=" --node gamma"]').waitFor();
    await page.getByRole('button', { name: 'Make a token for beta' }).click();
    await page.locator('input[value^="tasuki join "][value$=" --node beta"]').waitFor();
    await shot(page, 'setup-join');
    await accessible(page, 'tokens for nodes');
  });
}

// onPhone goes through the same in Japanese, with a third node, in the dark.
async function onPhone(page) {
  await step('on a phone, in Japanese', async () => {
    await page.goto(url);
    await page.getByLabel('ユーザー名').fill(process.env.NAME);
    await page.getByLabel('パスワード').fill(process.env.PASSWORD);
    await page.getByRole('button', { name: 'サインイン' }).click();
    await page.getByRole('link', { name: 'セットアップウィザードを開く' }).click();
    const go = () => page.getByRole('button', { name: '次へ' }).click();
    const at = async (n) => {
      await page.getByRole('heading', { level: 2, name: new RegExp(`^手順 ${n}/4`) }).waitFor();
      await wide(page, `step ${n}`);
      await shot(page, `setup-phone-${n}`);
      await accessible(page, `step ${n} on a phone`);
    };
    await at(1);
    await page.getByLabel('名前').last().fill('beta');
    await page.getByLabel('ネットワーク 1 のアドレス').last().fill('192.168.10.2');
    await page.getByLabel('ネットワーク 2 のアドレス').last().fill('10.0.0.2');
    await go();
    await page.locator('tr[data-key="link"]').waitFor();
    await page.getByRole('radio', { name: 'なし' }).check();
    await page.locator('td.chosen').first().waitFor();
    await at(2);
    await go();
    await at(3);
    await go();
    await at(4);
    await page.getByText('arbitration none').waitFor();
  });
}

await run(async () => {
  const page = await open({ viewport: { width: 1440, height: 1500 } });
  await signIn(page, url);
  await byKeyboard(page);
  await third(page);
  await group(page);
  await file(page);
  const phone = await open({
    viewport: { width: 390, height: 844 },
    hasTouch: true,
    isMobile: true,
    colorScheme: 'dark',
    locale: 'ja-JP',
  });
  await onPhone(phone);
  await join(page);
});
