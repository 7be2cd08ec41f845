// The page: takes the server's reports, and shows them.

import { hasToken, onDenied, send, setToken } from './api.js';
import { Charts } from './charts.js';
import { atMost, bytes, count, rate, short, span } from './format.js';
import { History, MEMORY_FROM, sum } from './history.js';
import { PublishBox } from './publish.js';
import { follow } from './stream.js';
import { showShards, Topics } from './tables.js';

const TOPICS_EVERY_S = 3;
const find = (id) => document.getElementById(id);
const set = (id, text) => {
  const element = find(id);
  if (element.textContent !== text) element.textContent = text;
};

const history = new History();
const charts = new Charts(find('charts'), find('cursor-time'), find('reading'));
const publish = new PublishBox(document);
const topics = new Topics(document, (topic) => publish.pick(topic));
let live = false;
let topicsAt = 0;
let retryAt = 0;

function state(name) {
  find('state').dataset.state = name;
  document.body.dataset.state = name;
  set('state-name', name);
}

function numbers(stats) {
  const { totals } = stats;
  const point = history.newest;
  set('uptime', span(stats.uptime_s));
  set('version', stats.version);
  set('resident', bytes(stats.resident_bytes));
  set('n-connections', count(stats.connections));
  set('n-max', `of ${count(stats.max_connections)}`);
  find('n-meter').style.width = `${Math.min(100, (stats.connections / stats.max_connections) * 100)}%`;
  set('n-out', rate(point.out));
  set('n-in', `${rate(point.in)} /s in`);
  set('n-drops', rate(point.dropped));
  set('n-drops-total', `${short(sum(totals.dropped))} since the start`);
  find('tile-drops').classList.toggle('alarm', point.dropped > 0);
  set('n-p99', atMost(point.p99));
  set('n-p50', point.p50 === null ? 'nothing published' : `p50 ${atMost(point.p50)}`);
  set('n-queued', short(totals.queued_messages));
  set('n-queued-bytes', `${bytes(totals.queued_bytes)} in outboxes`);
  set('n-memory', bytes(point.memory));
  set('n-memory-more', point.memory === null ? `shown from ${MEMORY_FROM} connections` : `${bytes(stats.resident_bytes_at_start)} at the start`);
  find('empty').hidden = stats.connections > 0;
}

function draw() {
  if (document.hidden || history.newest === null) return;
  charts.show(history.points, Date.now() / 1000);
}

/** Before the first report comes what the server remembers: the charts don't begin when the page is opened. */
async function open(signal) {
  const past = await send('v1/history', { signal });
  if (past.status === 401) return past;
  if (past.ok) history.fill(await past.json(), Date.now() / 1000);
  return send('v1/events', { signal, headers: { Accept: 'text/event-stream' } });
}

const tryNow = follow(open, {
  stats(stats) {
    const now = Date.now() / 1000;
    history.push(stats, now);
    live = true;
    find('retry').hidden = true;
    set('state-more', '');
    state(stats.state);
    document.title = `${count(stats.connections)} · corecast`;
    numbers(stats);
    showShards(find('shards'), stats.shards);
    publish.everyone(stats.connections);
    draw();
    if (now - topicsAt >= TOPICS_EVERY_S && !document.hidden) {
      topicsAt = now;
      topics.refresh();
    }
  },
  lost(why, waitMs) {
    live = false;
    retryAt = Date.now() + waitMs;
    state('disconnected');
    find('state').title = why;
    find('retry').hidden = false;
    document.title = 'disconnected · corecast';
    countdown();
  },
  denied: () => askToken(),
});
find('retry').addEventListener('click', () => tryNow());
window.addEventListener('online', () => tryNow());

function countdown() {
  if (!live && retryAt > 0) set('state-more', `${find('state').title}; next try in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`);
}

// While the server is away, time goes on: the gap grows.
setInterval(() => {
  if (live) return;
  countdown();
  draw();
}, 1000);
document.addEventListener('visibilitychange', draw);

/** One prompt, however many calls were refused at once. */
let asking = null;
function askToken() {
  asking ??= new Promise((resolve) => {
    const dialog = find('ask');
    set('token-wrong', hasToken() ? 'The server does not take this token.' : '');
    state('token needed');
    const done = () => {
      const token = find('token').value.trim();
      // Escape closes a dialog too; without a token there is nothing to see, so it stays.
      if (token === '') {
        dialog.showModal();
        return;
      }
      dialog.removeEventListener('close', done);
      setToken(token);
      find('token').value = '';
      asking = null;
      resolve();
    };
    dialog.addEventListener('close', done);
    dialog.showModal();
    find('token').focus();
  });
  return asking;
}
onDenied(askToken);

find('theme').addEventListener('click', () => window.toggleTheme());
