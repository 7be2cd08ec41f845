// Runs the client module against a real server: node client.mjs WHERE ADDRESS, as in node client.mjs page 127.0.0.1:8080
// WHERE: ws (Node with the package ws), node (Node's own WebSocket), page, worker (chromium; the server has --demo).

import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { DEADLINE_MS, withPage } from './browser.mjs';
import { run } from './client.scenario.mjs';

const SCENARIO = fileURLToPath(new URL('client.scenario.mjs', import.meta.url));
const [where, address] = process.argv.slice(2);
const url = `ws://${address}/ws`;
const orders = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function report(seen) {
  console.log(seen);
  if (seen !== 'all is well') await orders.next();
}

const inNode = async (options) => run(await import('../../deploy/web/corecast.js'), url, options, report);

/** A page of the server, which finds the scenario beside the module that the server has. */
async function inBrowser(start) {
  await withPage(async (page, complaints) => {
    page.setDefaultTimeout(4 * DEADLINE_MS);
    await page.context().route('**/client.scenario.mjs', (route) => route.fulfill({ path: SCENARIO }));
    // Any document of the server will do: one that the test makes up is of no network, and may not reach this one.
    await page.goto(`http://${address}/corecast.js`);
    await page.exposeFunction('report', report);
    await page.evaluate(start, url);
    // Each try while the server was away shows in the console; nothing else may.
    complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes('WebSocket connection to')));
  });
}

const places = {
  ws: async () => inNode({ WebSocket: (await import('ws')).default }),
  node: () => inNode({}),
  page: () => inBrowser(async (url) => {
    const { run } = await import('/client.scenario.mjs');
    await run(await import('/corecast.js'), url, {}, window.report);
  }),
  worker: () => inBrowser((url) => new Promise((resolve, reject) => {
    const script = `
      import * as modules from '${location.origin}/corecast.js';
      import { run } from '${location.origin}/client.scenario.mjs';
      const report = (seen) => new Promise((resolve) => {
        onmessage = resolve;
        postMessage(seen);
      });
      run(modules, '${url}', {}, report).catch((error) => postMessage(String(error.stack)));`;
    const worker = new Worker(URL.createObjectURL(new Blob([script], { type: 'text/javascript' })), { type: 'module' });
    worker.onerror = (event) => reject(new Error(event.message));
    worker.onmessage = async ({ data }) => {
      if (!['subscribed', 'all is well'].includes(data)) return reject(new Error(data));
      await window.report(data);
      worker.postMessage('go on');
      if (data === 'all is well') resolve();
    };
  })),
};

if (!Object.hasOwn(places, where)) throw new Error(`it runs in ${Object.keys(places).join(', ')}`);
await places[where]();
process.exit(0);
