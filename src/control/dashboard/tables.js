// The tables. Names come from clients: they only ever become text nodes.

import { call } from './api.js';
import { bytes, count, plural, short } from './format.js';

/** The server lists topics by name; so many of them are looked at to find the top ones. */
const LOOKED_AT = 1000;
const ROWS = 20;

function cell(text, className = '') {
  const td = document.createElement('td');
  td.className = className;
  td.textContent = text;
  return td;
}

const row = (...cells) => {
  const tr = document.createElement('tr');
  tr.append(...cells);
  return tr;
};

export function showShards(table, shards) {
  const rows = shards.map((shard) => {
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = shard.shard;
    const queued = cell(count(shard.queued_messages), 'n');
    queued.title = bytes(shard.queued_bytes);
    const mailbox = shard.publish_queue + shard.mesh_backlog;
    const stalls = cell(count(shard.stalls), 'n');
    if (shard.stalls > 0) {
      const worst = document.createElement('span');
      worst.className = 'dim';
      worst.textContent = ` ≤ ${count(shard.stall_ms_max)} ms`;
      stalls.append(worst);
    }
    return row(head, cell(count(shard.connections), 'n'), queued, cell(count(mailbox), 'n'), stalls);
  });
  table.tBodies[0].replaceChildren(...rows);
}

export class Topics {
  #table;
  #none;
  #filtered;
  #note;
  #prefix;
  #names;
  #pick;
  #sort = 'subscribers';
  #list = [];
  #more = false;
  #asked = 0;
  #busy = false;

  /** @param {(topic: string) => void} pick called when a topic's name is clicked */
  constructor(root, pick) {
    this.#table = root.querySelector('#topics');
    this.#none = root.querySelector('#topics-none');
    this.#filtered = root.querySelector('#topics-filtered');
    this.#note = root.querySelector('#topics-note');
    this.#prefix = root.querySelector('#prefix');
    this.#names = root.querySelector('#topic-names');
    this.#pick = pick;
    this.#prefix.addEventListener('input', () => this.refresh(true));
    for (const button of this.#table.querySelectorAll('button[data-sort]')) {
      button.addEventListener('click', () => {
        this.#sort = button.dataset.sort;
        for (const th of this.#table.tHead.rows[0].cells) if (th.hasAttribute('aria-sort')) th.ariaSort = 'none';
        button.closest('th').ariaSort = this.#sort === 'topic' ? 'ascending' : 'descending';
        this.#show();
      });
    }
  }

  /** Asks again; while an answer is awaited, only what the user just typed asks once more. */
  async refresh(typed = false) {
    if (this.#busy && !typed) return;
    this.#busy = true;
    this.#asked += 1;
    const mine = this.#asked;
    try {
      const prefix = this.#prefix.value;
      const query = new URLSearchParams({ limit: LOOKED_AT, ...(prefix && { prefix }) });
      const { topics, next } = await call(`v1/topics?${query}`);
      if (mine !== this.#asked) return;
      this.#list = topics;
      this.#more = next !== null;
      this.#show();
    } catch {
      // The header says that the server is away; the table keeps what it had.
    } finally {
      if (mine === this.#asked) this.#busy = false;
    }
  }

  #show() {
    const by = this.#sort;
    const name = (a, b) => (a.topic < b.topic ? -1 : 1);
    const top = [...this.#list].sort(by === 'topic' ? name : (a, b) => b[by] - a[by] || name(a, b)).slice(0, ROWS);
    const focused = document.activeElement?.closest?.('#topics tbody button')?.textContent;
    this.#table.tBodies[0].replaceChildren(...top.map((topic) => this.#row(topic)));
    if (focused !== undefined) [...this.#table.tBodies[0].querySelectorAll('button')].find((b) => b.textContent === focused)?.focus();
    this.#table.hidden = top.length === 0;
    const filtered = this.#prefix.value !== '';
    this.#none.hidden = top.length > 0 || filtered;
    this.#filtered.hidden = top.length > 0 || !filtered;
    const total = this.#more ? `the first ${count(this.#list.length)} by name; narrow them with the box` : plural(this.#list.length, 'topic');
    this.#note.textContent = this.#list.length === 0 ? '' : top.length < this.#list.length ? `top ${top.length} of ${total}` : total;
    this.#names.replaceChildren(...top.map(({ topic }) => {
      const option = document.createElement('option');
      option.value = topic;
      return option;
    }));
  }

  #row(topic) {
    const button = document.createElement('button');
    button.type = 'button';
    button.className = 'link';
    button.textContent = topic.topic;
    button.title = `Publish to ${topic.topic}`;
    button.addEventListener('click', () => this.#pick(topic.topic));
    const name = document.createElement('td');
    name.className = 'name';
    name.append(button);
    if (topic.slow_consumer !== null) {
      // Where the screen is too narrow for the last column.
      const policy = document.createElement('small');
      policy.textContent = topic.slow_consumer;
      name.append(policy);
    }
    const subscribers = cell(count(topic.subscribers), 'n');
    subscribers.title = topic.subscribers_by_shard.map((n, shard) => `shard ${shard}: ${count(n)}`).join(', ');
    return row(
      name,
      subscribers,
      cell(short(topic.published), 'n'),
      cell(short(topic.dropped), topic.dropped > 0 ? 'n bad' : 'n dim'),
      cell(topic.slow_consumer ?? 'server default', topic.slow_consumer ? 'wide' : 'wide dim'),
    );
  }
}
