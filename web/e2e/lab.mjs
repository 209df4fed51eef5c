// The reference scenario, seen and driven through the console.
import { accessible, expect, lab, measure, open, run, shot, signIn, step } from './browser.mjs';

const first = process.env.FIRST; // the console of the node where the group is
const second = process.env.SECOND;
const within = 300; // milliseconds from an event to the screen, in the middle of what is measured
const moves = 5000; // milliseconds from the loss of a node to the same view at another one
const figures = []; // what was measured, and the most that it may be
const larger = '288'; // MiB of the data devices, that had less
const delays = [];

// watch notes when a part of the page changes on the screen, by the clock that the
// nodes have too.
const watch = (page, selector) =>
  page.evaluate((selector) => {
    window.seen = [];
    let last = '';
    const look = () => {
      const text = document.querySelector(selector)?.textContent ?? '';
      if (text !== last) window.seen.push({ at: Date.now(), text });
      last = text;
    };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
    look();
  }, selector);

// shown measures how long after an event the page showed what it brought about.
async function shown(page, code, text) {
  const events = await page.evaluate(async () => (await fetch('/v1/events?newest=true&limit=200')).json());
  const event = events.findLast((e) => e.code === code);
  expect(event, `there is no event ${code}`);
  const seen = await page.evaluate(() => window.seen);
  const at = seen.find((s) => text.test(s.text) && s.at >= Date.parse(event.time) - 50);
  expect(at, `${text} was never shown: ${JSON.stringify(seen)}`);
  const took = at.at - Date.parse(event.time);
  console.log(`           ${code} was on the screen after ${took} ms`);
  delays.push(took);
}

const row = (page, text) => page.locator('tr[data-key="failover"]', { hasText: text }).first();
const press = (scope, name) => scope.getByRole('button', { name, exact: true }).first().click();

async function moveOn(page) {
  let pulled;
  await step('watch the group move when the cable is pulled', async () => {
    await row(page, /Online.*CLP-1/).waitFor();
    await watch(page, 'tr[data-key="failover"]');
    await lab('pull', 'bay7-esx', 'vmnic1');
    pulled = Date.now();
    await row(page, /Online.*CLP-2/).waitFor();
  });
  await shown(page, 'group-start-done', /Online.*CLP-2/);
  await shot(page, 'moved');
  return pulled;
}

async function goOn(page, pulled) {
  await step('the page of the node that is cut off goes on at the other one', async () => {
    await page.waitForURL(`${second}/groups/failover`);
    await page.getByText('This is CLP-2 now').waitFor();
    await page.getByRole('heading', { name: 'failover', level: 1 }).waitFor();
  });
  const took = Date.now() - pulled;
  console.log(`           it is there ${took} ms after the cable was pulled`);
  figures.push([took, moves, 'the page was at the other node']);
  await shot(page, 'moved-on');
}

async function report(page) {
  await step('open the report of the move', async () => {
    await page
      .getByRole('link', { name: /Detected an error in monitoring miiw-vmnic1/ })
      .first()
      .click();
    await page.getByRole('heading', { name: 'Where the time went' }).waitFor();
    const story = await page.locator('.story').innerText();
    for (const part of ['exec', 'fip', 'CLP-1', 'CLP-2'])
      expect(story.includes(part), `${part} is not in the report:\n${story}`);
  });
  await shot(page, 'report');
  await accessible(page, 'report');
}

async function operate(page) {
  await page.getByRole('link', { name: 'Groups', exact: true }).click();
  await page.getByRole('link', { name: 'failover', exact: true }).click();
  const head = page.locator('.view-head');
  const state = (text) => head.getByText(text, { exact: true }).waitFor();
  await state('Online');
  await shot(page, 'group');
  await accessible(page, 'group');
  await watch(page, '.view-head');
  await step('stop the group', async () => {
    await press(head, 'Stop');
    await shot(page, 'ask');
    await accessible(page, 'a question');
    await press(page.getByRole('dialog'), 'Stop');
    await state('Offline');
  });
  await shown(page, 'group-stop-done', /Offline/);
  await step('start it', async () => {
    await press(head, 'Start');
    await page.getByRole('dialog').getByLabel('Start on').selectOption('CLP-2');
    await press(page.getByRole('dialog'), 'Start');
    await state('Online');
  });
  await shown(page, 'group-start-done', /Online/);
  await step('move it', async () => {
    await page.locator('.copies', { hasText: /In sync[\s\S]*In sync/ }).waitFor();
    await press(head, 'Move');
    await page.getByRole('dialog').getByLabel('Move to').selectOption('CLP-1');
    await press(page.getByRole('dialog'), 'Move');
    await page
      .locator('dd', { hasText: /^CLP-1$/ })
      .first()
      .waitFor();
    await state('Online');
  });
}

async function configure(page) {
  await page.getByRole('link', { name: 'Configuration', exact: true }).click();
  const text = page.getByLabel('Cluster file', { exact: true });
  const before = await text.inputValue();
  await step('type an error', async () => {
    await text.fill(before.replace('startup: auto', 'startupp: auto'));
    await page.getByText(/Problems: 1/).waitFor();
    const line = before.split('\n').findIndex((l) => l.includes('startup: auto')) + 1;
    await page.getByRole('button', { name: new RegExp(`Line ${line}, column`) }).click();
    expect(
      (await page.getByRole('button', { name: 'Apply', exact: true }).count()) === 0,
      'what is wrong can be applied',
    );
  });
  await shot(page, 'config-error');
  await accessible(page, 'configuration');
  await step('correct it, and apply another change', async () => {
    await text.fill(before.replace('comment: business', 'comment: important business'));
    await page.getByText('The file can be applied.').waitFor();
    await page.getByLabel('Note for the history').fill('it is important');
    await page.locator('.foreseen[aria-busy="false"]', { hasText: 'Faults that can be survived' }).waitFor();
    await shot(page, 'config-plan');
    await press(page.locator('.view-head'), 'Apply');
    await press(page.getByRole('dialog'), 'Apply');
    await page.getByRole('row', { name: /it is important/ }).waitFor();
  });
  await step('roll back', async () => {
    await page.getByRole('row').nth(2).getByRole('button', { name: 'Put into the editor' }).click();
    await page.getByText('The file can be applied.').waitFor();
    expect((await text.inputValue()) === before, 'the old text is another one');
    await press(page.locator('.view-head'), 'Apply');
    await press(page.getByRole('dialog'), 'Apply');
    await page.getByRole('row', { name: /Version \d+ again/ }).waitFor();
  });
}

async function foresee(page) {
  const answer = (text) => page.locator('.foreseen[aria-busy="false"]', { hasText: text }).waitFor();
  await step('ask what would happen if the node of the group lost its power', async () => {
    await page.getByRole('link', { name: 'Groups', exact: true }).click();
    await page.getByRole('link', { name: 'failover', exact: true }).click();
    await page.getByRole('link', { name: 'CLP-1 loses its power' }).click();
    await page.getByRole('heading', { name: 'If CLP-1 loses its power' }).waitFor();
    await page.locator('[data-key="failover"]', { hasText: /CLP-1 → CLP-2, active nowhere for [\d.]+ m?s/ }).waitFor();
    await answer('Activating group failover has completed.');
  });
  await shot(page, 'whatif');
  await accessible(page, 'what would happen');
  await step('ask for two things at once, and for a cable that is not there', async () => {
    await page.getByLabel('What would happen if').selectOption('pull');
    await page.getByLabel('Node', { exact: true }).selectOption('CLP-2');
    await page.getByLabel('Number of a network, or a device').fill('2');
    await press(page, 'Ask with both');
    await answer('If CLP-2 is cut from network 2, CLP-1 loses its power');
    await page.getByLabel('Number of a network, or a device').fill('nosuch0');
    await press(page, 'Ask');
    await page.getByText('this machine has no interface nosuch0').waitFor();
    await page.goBack();
    await answer('If CLP-2 is cut from network 2, CLP-1 loses its power');
  });
}

async function rehearse(page) {
  await page.getByRole('link', { name: 'Monitors', exact: true }).click();
  await step('rehearse the failure of a monitor', async () => {
    await press(page.locator('tr[data-key="miiw-eth1"]'), 'Rehearse a failure');
    await shot(page, 'rehearse');
    await press(page.getByRole('dialog'), 'Rehearse a failure');
    await happened(page, 'monitor-rehearsal', { monitor: 'miiw-eth1' });
  });
  await page.getByRole('link', { name: 'Nodes', exact: true }).click();
  await page.getByRole('link', { name: 'CLP-1', exact: true }).click();
  await page.getByRole('button', { name: 'Rehearse at CLP-1' }).first().waitFor();
}

async function grow(page) {
  await page.getByRole('link', { name: 'Mirror disks', exact: true }).click();
  const copy = (text) => page.locator('.copies', { hasText: text }).waitFor();
  await step('grow a mirror disk', async () => {
    await copy(/In sync[\s\S]*In sync/);
    await lab('enlarge', 'CLP-1', larger);
    await lab('enlarge', 'CLP-2', larger);
    await press(page, 'Grow');
    await press(page.getByRole('dialog'), 'Grow');
    await happened(page, 'mirror-disk-grown', {});
    await copy(new RegExp(`${larger} MiB`));
    await copy(/In sync[\s\S]*In sync/);
  });
  await step('verify it, and repair what differs', async () => {
    await press(page, 'Verify');
    await page.getByLabel('Copy what differs from the active copy').check();
    await press(page.getByRole('dialog'), 'Verify');
    await happened(page, 'mirror-disk-verified', {});
  });
}

// happened waits for an event with these fields.
async function happened(page, code, fields) {
  await page.waitForFunction(
    async ([code, fields]) => {
      const events = await (await fetch('/v1/events?newest=true&limit=50')).json();
      return events.some((e) => e.code === code && Object.entries(fields).every(([k, v]) => e.fields?.[k] === v));
    },
    [code, fields],
    { polling: 200 },
  );
}

async function tokens(page) {
  await page.getByRole('link', { name: 'Users', exact: true }).click();
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  const dialog = page.getByRole('dialog');
  const token = await step('make an access token', async () => {
    await press(page, 'Make a token');
    await dialog.getByLabel('What it is for').fill('backup');
    await dialog.getByLabel('How long it is good').selectOption('30');
    await accessible(page, 'a new token');
    await press(dialog, 'Make a token');
    const text = await dialog.getByLabel('Access token').inputValue();
    await press(dialog, 'Copy');
    await dialog.getByText('Copied.').waitFor();
    expect((await page.evaluate(() => navigator.clipboard.readText())) === text, 'another text was copied');
    await shot(page, 'token');
    await press(dialog, 'Close');
    await page.getByRole('row', { name: /backup.*read.*user ann/ }).waitFor();
    expect(!(await page.content()).includes(text), 'the token is still there');
    await lab('call', text, '200');
    return text;
  });
  await step('remove it', async () => {
    await press(page.getByRole('row', { name: /backup/ }), 'Remove');
    await press(dialog, 'Remove');
    await page.getByText('No script has an access token.').waitFor();
    await lab('call', token, '403');
  });
}

// look goes through views without loading the page anew.
async function look(page, what, views, check) {
  await step(`look at ${views.length} views ${what}`, async () => {
    for (const view of views) {
      await page.evaluate((path) => {
        history.pushState({}, '', path);
        dispatchEvent(new PopStateEvent('popstate'));
      }, `/${view}`);
      await page.getByRole('heading', { level: 1 }).first().waitFor();
      await page.waitForFunction(() => !document.querySelector('.pf-v6-c-spinner'));
      const wide = await page.evaluate(() => {
        const main = document.getElementById('main');
        return Math.max(main.scrollWidth - main.clientWidth, document.documentElement.scrollWidth - innerWidth);
      });
      expect(wide <= 0, `/${view} is ${wide} pixels too wide ${what}`);
      const name = `${what.replaceAll(' ', '-')}-${view.replaceAll(/\W/g, '-') || 'overview'}`;
      await shot(page, name);
      if (check) await accessible(page, name);
    }
  });
}

await run(async () => {
  const page = await open({ viewport: { width: 1440, height: 900 } }, [
    /status of 403/,
    /status of 422.*config\/plan/,
    /status of 409.*simulate/,
  ]);
  await step('a wrong password is refused', async () => {
    await signIn(page, second, process.env.NAME, 'wrong password');
    await page
      .getByText(/wrong|refused|not right/i)
      .first()
      .waitFor();
  });
  await shot(page, 'sign-in');
  await accessible(page, 'sign-in');
  await step('sign in', async () => {
    await signIn(page, second);
    await page.getByRole('heading', { name: 'Topology' }).waitFor();
    await row(page, /Online/).waitFor();
  });
  await shot(page, 'overview');
  await accessible(page, 'overview');

  const other = await open({}, [/ERR_|Failed to load/]);
  await signIn(other, `${first}/groups/failover`);
  await other.getByRole('heading', { name: 'failover', level: 1 }).waitFor();

  await goOn(other, await moveOn(page));
  await report(page);
  await lab('plug', 'bay7-esx', 'vmnic1');
  await operate(page);
  await foresee(page);
  await rehearse(page);
  await grow(page);
  await configure(page);
  await tokens(page);

  await look(
    page,
    'on a desk',
    ['nodes', 'nodes/CLP-2', 'monitors', 'mirrors', 'events', 'links', 'users', 'whatif?kill=CLP-2'],
    true,
  );

  const phone = await open({ viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true });
  await signIn(phone, second);
  await phone.getByRole('heading', { name: 'Topology' }).waitFor();
  await accessible(phone, 'overview on a phone');
  await look(
    phone,
    'on a phone',
    ['', 'groups/failover', 'mirrors', 'events', 'config', 'users', 'setup', 'whatif?move=failover'],
    false,
  );

  const dark = await open({ viewport: { width: 1280, height: 800 }, colorScheme: 'dark', locale: 'ja-JP' });
  await dark.goto(second);
  await dark.getByLabel('ユーザー名').fill(process.env.NAME);
  await dark.getByLabel('パスワード').fill(process.env.PASSWORD);
  await dark.getByRole('button', { name: 'サインイン' }).click();
  await dark.getByRole('heading', { name: '構成図' }).waitFor();
  await shot(dark, 'dark-japanese');
  await accessible(dark, 'dark, in Japanese');
  await look(dark, 'dark', ['groups/failover', 'config', 'users', 'whatif?kill=CLP-1'], true);

  figures.push([
    delays.sort((a, b) => a - b)[Math.floor(delays.length / 2)],
    within,
    'in the middle, a change was on the screen',
  ]);
  for (const [took, most, what] of figures) {
    console.log(`           ${what} after ${took} ms, of ${most}`);
    expect(!measure || took <= most, `${what} after ${took} ms, more than ${most}`);
  }
});
