// Starts Debian's chromium for a test, in a profile of its own, and holds every page to what all our pages promise:
// no error in the console, nothing loaded from another host.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

/** No measure of speed: a busy machine must not fail a test. */
export const DEADLINE_MS = 30_000;

// --no-sandbox: tests may run as root, where the sandbox does not. The rest keeps the browser from calling home.
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

/**
 * Runs a test with a fresh browser.
 * @param {(page: import('playwright-core').Page, complaints: string[]) => Promise<void>} test
 *   it may take out of `complaints` what it provoked; what is left at the end fails the test
 */
export async function withPage(test) {
  const profile = await mkdtemp(join(tmpdir(), 'corecast-browser-'));
  const complaints = [];
  let context;
  try {
    context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      headless: true,
      args: FLAGS,
      viewport: { width: 1440, height: 900 },
    });
    context.setDefaultTimeout(DEADLINE_MS);
    const page = context.pages()[0] ?? (await context.newPage());
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`);
    });
    page.on('pageerror', (error) => complaints.push(`uncaught: ${error.stack}`));
    page.on('dialog', (dialog) => {
      complaints.push(`a ${dialog.type()} opened: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on('request', (request) => {
      const { hostname, protocol } = new URL(request.url());
      if (protocol !== 'data:' && hostname !== '127.0.0.1') complaints.push(`loaded from elsewhere: ${request.url()}`);
    });
    await test(page, complaints);
    if (complaints.length > 0) throw new Error(`the page complained:\n${complaints.join('\n')}`);
  } finally {
    await context?.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}
