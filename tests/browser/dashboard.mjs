// Drives the dashboard as a person would: node dashboard.mjs SCENARIO URL [ARGUMENT…]
// tests/suite/dashboard.rs starts the server and its clients, and runs this.
// With CORECAST_SCREENSHOTS=FOLDER the scenario `publish` leaves pictures there, light and dark, wide and narrow.

import assert from 'node:assert/strict';

import { withPage } from './browser.mjs';

const state = (page, name) => page.waitForSelector(`#state[data-state="${name}"]`);

/** Waits until an element holds exactly this text. */
const holds = (page, selector, text) =>
  page.waitForFunction(([at, wanted]) => document.querySelector(at)?.textContent === wanted, [selector, text]);

/** The receipt that is shown, as an object. */
const receipt = (page) =>
  page.$$eval('#result .receipt > div', (rows) => Object.fromEntries(rows.map((row) => [...row.children].map((cell) => cell.textContent))));

const scenarios = {
  /** One subscriber of TOPIC is connected: it shall get PAYLOAD. */
  async publish(url, topic, payload) {
    await withPage(async (page) => {
      await page.goto(url);
      await state(page, 'running');
      await holds(page, '#n-connections', '1');
      assert.equal(await page.isVisible('#empty'), false);

      // The topic's name is text, whatever is in it.
      const row = page.locator('#topics tbody tr', { hasText: topic });
      await row.waitFor();
      assert.equal(await row.locator('td').first().textContent(), topic);
      assert.equal(await row.locator('td').nth(1).textContent(), '1');

      await row.getByRole('button').click();
      assert.equal(await page.inputValue('#topic'), topic);
      await page.fill('#payload', payload);
      await page.getByRole('button', { name: 'Publish', exact: true }).click();
      await page.waitForSelector('#result h3');
      assert.match(await page.textContent('#result h3'), /^Written to 1 client in [\d.]+ (µs|ms|s)\.$/);
      const { matched, written, queued, dropped, shards, ...times } = await receipt(page);
      assert.deepEqual({ matched, written, queued, dropped, shards }, { matched: '1', written: '1', queued: '0', dropped: '0', shards: '2' });
      assert.match(times['first write after'], /^[\d.]+ (µs|ms|s)$/);
      assert.match(times['last write after'], /^[\d.]+ (µs|ms|s)$/);
      assert.match(times['publish id'], /^\d+$/);

      // What was published shows in the numbers that the server sends.
      await page.waitForFunction(() => /^≤ /.test(document.querySelector('#n-p99').textContent));
      await page.waitForFunction((name) => [...document.querySelectorAll('#topics tbody tr')].some((tr) => tr.cells[0].textContent === name && tr.cells[2].textContent === '1'), topic);
      assert.deepEqual(await page.$$eval('#shards tbody tr', (rows) => rows.map((tr) => tr.cells[0].textContent)), ['0', '1']);
      assert.equal(await page.locator('.chart canvas').count(), 8);
      assert.equal(await page.locator('#topics img, #result img').count(), 0, 'a name became an element');

      // Nobody subscribes: said in words. The name is one that needs escaping in an address.
      await page.fill('#topic', 'nobody/here?#%');
      await page.keyboard.press('Control+Enter');
      await holds(page, '#result h3', 'Nobody subscribes to this topic.');

      for (const theme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: theme });
        await page.waitForSelector(`html[data-theme="${theme}"]`);
        for (const [name, width, height] of [['desktop', 1440, 900], ['phone', 390, 844]]) {
          await page.setViewportSize({ width, height });
          assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, `at ${width} px the page scrolls sideways`);
          if (process.env.CORECAST_SCREENSHOTS) await page.screenshot({ path: `${process.env.CORECAST_SCREENSHOTS}/dashboard-${theme}-${name}.png`, fullPage: true });
        }
      }
      await page.getByRole('button', { name: /light and dark/ }).click();
      await page.waitForSelector('html[data-theme="light"]');
      await page.reload();
      await page.waitForSelector('html[data-theme="light"]');
    });
  },

  /** Something was published before the page is opened: it shows at once. */
  async history(url) {
    await withPage(async (page) => {
      await page.goto(url);
      await state(page, 'running');
      const chart = page.locator('.chart', { hasText: 'Time to last recipient' });
      await chart.locator('.none').waitFor({ state: 'hidden' });
      assert.match(await chart.locator('.plot').getAttribute('aria-label'), /^Time to last recipient/);
    });
  },

  /** The server wants TOKEN. */
  async token(url, token) {
    await withPage(async (page, complaints) => {
      await page.goto(url);
      await page.waitForSelector('#ask[open]');
      assert.equal(await page.textContent('#state-name'), 'token needed');
      await page.keyboard.press('Escape');
      await page.waitForSelector('#ask[open]');
      await page.fill('#token', 'wrong');
      await page.getByRole('button', { name: 'Open the dashboard' }).click();
      await holds(page, '#token-wrong', 'The server does not take this token.');
      await page.fill('#token', token);
      await page.getByRole('button', { name: 'Open the dashboard' }).click();
      await state(page, 'running');
      await page.waitForSelector('#empty', { state: 'visible' });
      assert.equal(await page.isVisible('#ask'), false);
      assert.deepEqual(await page.evaluate(() => Object.values(localStorage)), []);

      await page.getByText('Everyone').click();
      await page.getByRole('button', { name: 'Publish to 0 connections' }).click();
      await holds(page, '#result h3', 'There was nobody to send it to.');
      await page.reload();
      await state(page, 'running');

      const refused = complaints.filter((text) => text.includes('status of 401'));
      assert.ok(refused.length >= 2, 'one call without and one with the wrong token were refused');
      complaints.splice(0, complaints.length, ...complaints.filter((text) => !refused.includes(text)));
    });
  },

  /** The server goes away when "connected" is printed, and comes back when "disconnected" is. */
  async outage(url) {
    await withPage(async (page, complaints) => {
      await page.goto(url);
      await state(page, 'running');
      console.log('connected');
      await state(page, 'disconnected');
      assert.match(await page.textContent('#state-more'), /; next try in \d+ s$/);
      assert.equal(await page.title(), 'disconnected · corecast');
      console.log('disconnected');
      await state(page, 'running');
      assert.equal(await page.isVisible('#retry'), false);
      complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes('net::ERR_')));
    });
  },
};

const [name, ...rest] = process.argv.slice(2);
if (!Object.hasOwn(scenarios, name)) throw new Error(`scenarios are ${Object.keys(scenarios).join(', ')}`);
await scenarios[name](...rest);
