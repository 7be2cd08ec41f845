// The event stream: fetch() and not EventSource, because only fetch() can send an Authorization header.

/** Cuts a text/event-stream into events. Text may come in pieces of any size. */
export class EventParser {
  #rest = '';
  #event = '';
  #data = [];

  /** @returns {{event: string, data: string}[]} the events that this piece completes */
  push(text) {
    const events = [];
    this.#rest += text;
    for (;;) {
      // A CR at the very end may be half of a CRLF: wait for what follows.
      const end = this.#rest.search(/\r\n|\n|\r(?!$)/);
      if (end < 0) return events;
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + (this.#rest.startsWith('\r\n', end) ? 2 : 1));
      if (line !== '') this.#field(line);
      else if (this.#data.length > 0) events.push({ event: this.#event || 'message', data: this.#data.join('\n') });
      if (line === '') {
        this.#event = '';
        this.#data = [];
      }
    }
  }

  #field(line) {
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'data') this.#data.push(value);
    if (name === 'event') this.#event = value;
  }
}

/** Waits between tries: doubled each time, up to half a minute, the upper half of each by chance. */
export function backoffMs(tries, random = Math.random) {
  const most = Math.min(30_000, 1000 * 2 ** Math.min(tries, 5));
  return most / 2 + (random() * most) / 2;
}

/** Silence for so long, at a server that reports once a second, means that the connection is dead. */
const SILENCE_MS = 6000;

/**
 * Follows the stream for ever.
 * @param {(signal: AbortSignal) => Promise<Response>} open
 * @param {{stats: (stats: object) => void, lost: (why: string, waitMs: number) => void, denied: () => Promise<void>}} on
 *   `denied` resolves when another try makes sense
 * @returns {() => void} tries again at once, if it is waiting
 */
export function follow(open, on) {
  let wake = () => {};
  const loop = async () => {
    for (let tries = 0; ; tries += 1) {
      let why;
      try {
        await once(open, (stats) => {
          tries = 0;
          on.stats(stats);
        });
        why = 'the server ended the stream';
      } catch (error) {
        if (error instanceof Denied) {
          await on.denied();
          tries = -1;
          continue;
        }
        why = error.message;
      }
      const waitMs = backoffMs(tries);
      on.lost(why, waitMs);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  };
  loop();
  return () => wake();
}

class Denied extends Error {}

async function once(open, onStats) {
  const abort = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => abort.abort(new Error('no report for 6 s')), SILENCE_MS);
  };
  alive();
  try {
    const response = await open(abort.signal);
    if (response.status === 401) throw new Denied();
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    const parser = new EventParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      alive();
      for (const { event, data } of parser.push(value)) {
        if (event === 'stats') onStats(JSON.parse(data));
      }
    }
  } catch (error) {
    if (error instanceof Denied) throw error;
    throw abort.signal.aborted ? abort.signal.reason : error instanceof TypeError ? new Error('the server can’t be reached') : error;
  } finally {
    clearTimeout(timer);
    abort.abort();
  }
}
