// The pure parts of the dashboard, without a browser: node --test tests/browser/dashboard.unit.mjs

import assert from 'node:assert/strict';
import test from 'node:test';

const ours = (name) => import(new URL(`../../src/control/dashboard/${name}`, import.meta.url));
const { atMost, bytes, count, micros, percent, rate, shellWord, short, span, tick } = await ours('format.js');
const { History, quantile } = await ours('history.js');
const { backoffMs, EventParser } = await ours('stream.js');

test('an event stream is cut alike, however its text is cut into pieces', () => {
  const text = ': hello\r\n\r\nevent: stats\r\ndata: {"a":\r\ndata:1}\r\n\r\ndata: plain\n\nevent: nothing\n\ndata: rest';
  const whole = [{ event: 'stats', data: '{"a":\n1}' }, { event: 'message', data: 'plain' }];
  for (let size = 1; size <= text.length; size += 1) {
    const parser = new EventParser();
    const events = [];
    for (let at = 0; at < text.length; at += size) events.push(...parser.push(text.slice(at, at + size)));
    assert.deepEqual(events, whole, `pieces of ${size}`);
  }
});

test('the wait between tries grows, varies and ends at half a minute', () => {
  assert.equal(backoffMs(0, () => 0), 500);
  assert.equal(backoffMs(0, () => 1), 1000);
  assert.equal(backoffMs(3, () => 1), 8000);
  assert.equal(backoffMs(1000, () => 1), 30_000);
});

const report = (uptime, changes = {}) => ({
  uptime_s: uptime,
  connections: 40,
  bytes_per_connection: 900,
  totals: { messages_in: 0, messages_out: uptime * 100, queued_messages: 3, dropped: { 'queue-full': uptime * 2, closed: 0 }, ...changes.totals },
  shards: [{ connections: 25 }, { connections: 15 }],
  time_to_last_us: { buckets: [{ up_to: 1, count: 0 }, { up_to: 2, count: uptime * 9 }, { up_to: 4, count: uptime }, { up_to: null, count: 0 }] },
  ...changes,
});

test('rates come from two reports, quantiles from the last seconds', () => {
  const history = new History();
  history.push(report(10), 1000);
  assert.deepEqual(history.newest.drops, { 'queue-full': null, closed: null });
  assert.equal(history.newest.p50, null);
  history.push(report(12), 1001);
  const { out, drops, dropped, balance, p50, p99 } = history.newest;
  assert.deepEqual({ out, drops, dropped, balance, p50, p99 }, { out: 100, drops: { 'queue-full': 2, closed: 0 }, dropped: 2, balance: [25, -25], p50: 2, p99: 4 });
});

test('a silence and a restart are gaps, and nothing is counted across a restart', () => {
  const history = new History();
  history.push(report(10), 1000);
  history.push(report(11), 1001);
  history.push(report(20), 1010);
  assert.deepEqual(history.points.map((p) => p.gap === true), [false, false, true, false]);
  assert.equal(history.newest.drops['queue-full'], 2);
  assert.equal(history.push(report(1), 1011), true);
  assert.deepEqual(history.points.map((p) => p.gap === true), [false, false, true, false, true, false]);
  assert.equal(history.newest.drops['queue-full'], null);
});

test('what the server remembers comes first, and live reports go on from there', () => {
  const sample = (uptime) => ({
    uptime_s: uptime, connections: 40, connections_by_shard: [25, 15], bytes_per_connection: 900,
    messages_in: 0, messages_out: uptime * 100, queued_messages: 3, dropped: { 'queue-full': uptime * 2, closed: 0 },
    time_to_last: [0, uptime * 9, uptime, 0],
  });
  const past = { uptime_s: 12.9, bucket_ends_us: [1, 2, 4, null], samples: [10, 11, 12, 12.8].map(sample) };
  const history = new History();
  history.push(report(5), 900);
  history.fill(past, 1000);
  // What was seen before the samples begin stays; the sample that is too fresh for a rate goes.
  assert.deepEqual(history.points.map((p) => (p.gap ? 'gap' : Math.round(p.t * 10) / 10)), [900, 'gap', 997.1, 998.1, 999.1]);
  const { out, drops, balance, p50, p99 } = history.newest;
  assert.deepEqual({ out, drops, balance, p50, p99 }, { out: 100, drops: { 'queue-full': 2, closed: 0 }, balance: [25, -25], p50: 2, p99: 4 });
  history.push(report(13), 1000.1);
  assert.equal(history.newest.out, 100);
  history.fill({ ...past, samples: [] }, 1001);
  assert.equal(history.newest.out, 100);
});

test('the history is bounded by time', () => {
  const history = new History();
  for (let t = 0; t < 2000; t += 1) history.push(report(t), t);
  assert.ok(history.points.length <= 304, `${history.points.length} points`);
  assert.ok(history.points[0].t >= 2000 - 304);
});

test('few connections say nothing of balance and memory', () => {
  const history = new History();
  history.push(report(1, { connections: 3, shards: [{ connections: 3 }, { connections: 0 }] }), 1000);
  assert.deepEqual(history.newest.balance, [null, null]);
  assert.equal(history.newest.memory, null);
  history.push(report(2, { connections: 100 }), 1001);
  assert.equal(history.newest.memory, 900);
});

test('a quantile is the end of its bucket', () => {
  const buckets = (...counts) => counts.map((count, n) => ({ up_to: n < counts.length - 1 ? 1 << n : null, count }));
  assert.equal(quantile(buckets(0, 0, 0), 0.5), null);
  assert.equal(quantile(buckets(1, 1, 0), 0.5), 1);
  assert.equal(quantile(buckets(1, 1, 0), 0.51), 2);
  assert.equal(quantile(buckets(99, 0, 1), 0.99), 1);
  assert.equal(quantile(buckets(0, 0, 1), 0.99), 4);
});

test('numbers are written for people', () => {
  assert.equal(count(1234567), '1,234,567');
  assert.equal(count(null), '–');
  assert.deepEqual([0, 9999, 12345, 999_999, 1_234_567].map(short), ['0', '9,999', '12.3k', '1M', '1.23M']);
  assert.deepEqual([0, 500, 2500, 15_000, 1e6].map(tick), ['0', '500', '2.5k', '15k', '1M']);
  assert.deepEqual([0, 0.25, 9.96, 64.4, 21_649.2].map(rate), ['0', '0.3', '10', '64', '21.6k']);
  assert.deepEqual([0, 936, 1024, 1536, 31 * 2 ** 20].map(bytes), ['0 B', '936 B', '1 KiB', '1.5 KiB', '31 MiB']);
  assert.deepEqual([0, 40, 1840, 2e6].map(micros), ['0 µs', '40 µs', '1.84 ms', '2 s']);
  assert.equal(atMost(512), '≤ 512 µs');
  assert.deepEqual([0, 0.04, 1.25, -12.4].map(percent), ['0.0 %', '0.0 %', '+1.3 %', '−12 %']);
  assert.deepEqual([0, 59.9, 60, 3725, 93_784].map(span), ['0 s', '59 s', '1 min 0 s', '1 h 2 min', '1 d 2 h']);
});

test('a shell reads a quoted word as it was', () => {
  assert.equal(shellWord('plain'), 'plain');
  assert.equal(shellWord(''), "''");
  assert.equal(shellWord("it's $HOME"), "'it'\\''s $HOME'");
});
