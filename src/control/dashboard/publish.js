// The box that publishes a message and shows what became of it.

import { call, hasToken, Problem } from './api.js';
import { clockSeconds, count, micros, plural, shellWord } from './format.js';

const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
};

/** The path for a target, with `receipt=true`. */
function path(to, name) {
  if (to === 'everyone') return 'v1/broadcast?receipt=true';
  if (to === 'connection') return `v1/connections/${encodeURIComponent(name)}/messages?receipt=true`;
  // Not in the path, where proxies may decode slashes and fold dots.
  return `v1/topic/messages?name=${encodeURIComponent(name)}&receipt=true`;
}

/** What is wrong with the name, in the user's words; null: nothing. */
function complaint(to, name) {
  if (to === 'connection') return /^\d{1,20}$/.test(name) ? null : 'A connection’s id is a number; a client learns its own with ID.';
  if (to === 'topic') {
    if (name === '') return 'Which topic? Type its name.';
    if (name.includes(',')) return 'A topic’s name holds no comma: one topic at a time.';
    // What joins emoji, and the letters of some scripts, is left to the server to judge.
    if (/[\s\p{Cc}]|(?![\u200c\u200d\ufe0e\ufe0f])\p{Default_Ignorable_Code_Point}/u.test(name)) {
      return 'A topic’s name holds no white space and nothing invisible.';
    }
    if (new TextEncoder().encode(name).length > 255) return 'A topic’s name has at most 255 bytes.';
    if (name === '.' || name === '..') return 'A browser can’t put this name into an address. Use corecast push.';
  }
  return null;
}

export class PublishBox {
  #form;
  #topic;
  #connection;
  #payload;
  #policy;
  #send;
  #result;
  #fields;
  #connections = null;

  constructor(root) {
    const find = (id) => root.querySelector(`#${id}`);
    this.#form = find('form');
    this.#topic = find('topic');
    this.#connection = find('connection');
    this.#payload = find('payload');
    this.#policy = find('policy');
    this.#send = find('send');
    this.#result = find('result');
    this.#form.addEventListener('change', () => this.#target());
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#publish();
    });
    this.#form.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
    this.#fields = { topic: find('field-topic'), connection: find('field-connection') };
    this.#connection.addEventListener('focus', () => this.#suggest(find('connection-ids')));
    this.#target();
  }

  /** A few open connections to choose from. */
  async #suggest(list) {
    const { connections } = await call('v1/connections?limit=20').catch(() => ({ connections: [] }));
    list.replaceChildren(...connections.map(({ id, peer, framing }) => {
      const option = document.createElement('option');
      option.value = id;
      option.label = `${id}: ${peer}, ${framing}`;
      return option;
    }));
  }

  get #to() {
    return this.#form.elements.to.value;
  }

  /** Fills in a topic. */
  pick(topic) {
    this.#form.elements.to.value = 'topic';
    this.#topic.value = topic;
    this.#target();
    this.#form.scrollIntoView({ block: 'nearest' });
    this.#payload.focus();
  }

  /** How many connections "everyone" is, for the button. */
  everyone(connections) {
    if (this.#connections === connections) return;
    this.#connections = connections;
    this.#label();
  }

  #target() {
    for (const [to, field] of Object.entries(this.#fields)) field.hidden = to !== this.#to;
    this.#label();
  }

  #label() {
    this.#send.textContent = this.#to === 'everyone' && this.#connections !== null ? `Publish to ${plural(this.#connections, 'connection')}` : 'Publish';
  }

  async #publish() {
    if (this.#send.disabled) return;
    const to = this.#to;
    const field = to === 'connection' ? this.#connection : this.#topic;
    const name = to === 'everyone' ? '' : field.value.trim();
    const wrong = complaint(to, name);
    if (wrong !== null) {
      field.focus();
      this.#show(make('p', 'bad', wrong));
      return;
    }
    const policy = this.#policy.value;
    const request = { method: 'POST', body: this.#payload.value, headers: { 'Content-Type': 'text/plain; charset=utf-8', ...(policy && { 'Corecast-Slow-Consumer': policy }) } };
    this.#send.disabled = true;
    this.#result.setAttribute('aria-busy', 'true');
    try {
      const receipt = await call(path(to, name), request);
      this.#show(...describe(receipt, to, name), curl(path(to, name), request));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#show(...complain(error));
    } finally {
      this.#send.disabled = false;
      this.#result.removeAttribute('aria-busy');
    }
  }

  #show(...nodes) {
    this.#result.replaceChildren(...nodes);
    this.#result.scrollIntoView({ block: 'nearest' });
  }
}

/** A receipt in words and as a bar. */
function describe(receipt, to, name) {
  const dropped = Object.entries(receipt.dropped).filter(([, n]) => n > 0);
  const lost = dropped.reduce((total, [, n]) => total + n, 0);
  const where = make('span', 'target', to === 'everyone' ? 'everyone' : name);
  const title = make('h3', '', headline(receipt, lost, to));
  const when = make('p', 'dim', 'To ', where, ` at ${clockSeconds.format(Date.now())}`);
  const facts = make('dl', 'receipt');
  const fact = (term, text, className = '') => facts.append(make('div', className, make('dt', '', term), make('dd', '', text)));
  if (receipt.matched === 0) {
    fact('publish id', receipt.id);
    return [title, when, facts];
  }
  fact('matched', count(receipt.matched));
  fact('written', count(receipt.written), 'k-written');
  fact('queued', count(receipt.queued), 'k-queued');
  if (lost === 0) fact('dropped', '0', 'k-dropped');
  for (const [reason, n] of dropped) fact(`dropped: ${reason}`, count(n), 'k-dropped');
  fact('first write after', micros(receipt.first_write_us));
  fact('last write after', micros(receipt.last_write_us));
  fact('shards', count(receipt.shards));
  fact('publish id', receipt.id);
  return [title, when, bar(receipt, lost), facts];
}

function headline({ matched, written, queued, last_write_us: last }, lost, to) {
  if (matched === 0) return to === 'topic' ? 'Nobody subscribes to this topic.' : 'There was nobody to send it to.';
  if (to === 'connection' && lost === matched) return 'It did not reach the connection.';
  const rest = [queued > 0 ? `${count(queued)} queued` : '', lost > 0 ? `${count(lost)} dropped` : ''].filter(Boolean).join(', ');
  const time = last === null ? '' : ` in ${micros(last)}`;
  return `Written to ${written === matched ? (matched === 1 ? '1 client' : `all ${count(matched)} clients`) : `${count(written)} of ${count(matched)} clients`}${time}${rest ? `; ${rest}` : ''}.`;
}

/** Written, queued and dropped as parts of the matched; what is there can be seen, however few. */
function bar({ matched, written, queued }, lost) {
  const parts = [['k-written', written], ['k-queued', queued], ['k-dropped', lost]];
  const element = make('div', 'parts');
  element.setAttribute('aria-hidden', 'true');
  for (const [className, n] of parts) {
    if (n === 0) continue;
    const part = make('i', className);
    part.style.flexGrow = n / matched;
    element.append(part);
  }
  return element;
}

function complain({ title, message, code, status, retryAfter }) {
  const words = [make('h3', 'bad', title)];
  if (message !== title) words.push(make('p', '', message));
  if (status === 503) words.push(make('p', '', `Try again in ${retryAfter ?? 1} s.`));
  if (code) words.push(make('p', 'dim', make('code', '', code), ` · status ${status}`));
  return words;
}

/** The same from a shell: what somebody does next who tried it here. */
function curl(target, { body, headers }) {
  const url = new URL(target, document.baseURI);
  // Not --data-binary: it would take a payload that begins with @ for the name of a file.
  const words = ['curl', '--data-raw', shellWord(body)];
  if (headers['Corecast-Slow-Consumer']) words.push('-H', shellWord(`Corecast-Slow-Consumer: ${headers['Corecast-Slow-Consumer']}`));
  if (hasToken()) words.push('-H', '"Authorization: Bearer $TOKEN"');
  words.push(shellWord(url.href));
  return make('details', '', make('summary', '', 'The same with curl'), make('pre', '', make('code', '', words.join(' '))));
}
