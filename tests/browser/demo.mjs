// Opens the demo page and uses it as a person would. The argument: the page's address.
//
// It says what it has seen, a line each, and goes on when it is told to: the test stops and starts the server in
// between. With CORECAST_SCREENSHOTS=folder it leaves pictures of the page there.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { withPage } from './browser.mjs';

const WIDE = { width: 1100, height: 800 };
const PHONE = { width: 390, height: 844 };

const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Says what has been seen, and waits to be told to go on. */
async function report(seen) {
  console.log(seen);
  const { done } = await orders.next();
  assert(!done, 'the test is gone');
}

await withPage(async (page, complaints) => {
  const shown = (text) => page.locator('#messages li', { hasText: text }).waitFor();
  const isIn = (state) => page.locator(`#status[data-state=${state}]`).waitFor();
  const publish = async (topic, payload) => {
    await page.locator('#publish [name=topic]').fill(topic);
    await page.locator('#publish [name=payload]').fill(payload);
    await page.locator('#publish button').click();
  };
  const picture = async (name, size, colorScheme) => {
    if (!process.env.CORECAST_SCREENSHOTS) return;
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: join(process.env.CORECAST_SCREENSHOTS, `${name}.png`) });
  };

  const response = await page.goto(process.argv[2]);
  assert.match(response.headers()['content-security-policy'], /^default-src 'none'; script-src 'self';/);
  await isIn('open');
  await page.locator('#subscribe [name=topic]').fill('news');
  await page.locator('#subscribe button').click();
  await page.locator('#topics li', { hasText: 'news' }).waitFor();
  // What the page asks for comes behind its subscription, so when this message is here, the subscription holds.
  await publish('news', 'from <b>the page</b>');
  await shown('from <b>the page</b>');
  assert.match(await page.locator('#answer').innerText(), /^Published as \d+\.$/);
  await report('subscribed');
  await shown('pushed from outside');
  await picture('wide-light', WIDE, 'light');
  await picture('wide-dark', WIDE, 'dark');
  await picture('phone-dark', PHONE, 'dark');
  await picture('phone-light', PHONE, 'light');
  await report('received');

  await isIn('waiting');
  assert.match(await page.locator('#status').innerText(), /^Lost.*next try in/);
  await picture('lost', PHONE, 'light');
  await report('lost');
  await isIn('open');
  await publish('news', 'from the page again');
  await shown('from the page again');
  await report('reconnected');
  await shown('after the restart');
  // Each try while the server was away shows in the console; nothing else may.
  const others = complaints.splice(0).filter((complaint) => !complaint.includes('WebSocket connection to'));
  assert.deepEqual(others, []);

  // The same page may also read server-sent events, as any page of this origin.
  await page.evaluate(() => {
    const source = new EventSource('/sse?topic=events');
    source.onopen = () => (document.title = 'streaming');
    source.onmessage = (event) => (document.title = JSON.parse(event.data).payload);
  });
  await page.waitForFunction(() => document.title === 'streaming');
  await report('streaming');
  await page.waitForFunction(() => document.title === 'as an event');
});
console.log('all is well');
process.exit(0);
