// The client module against servers that do what ours would not: node --test tests/browser/client.unit.mjs

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import test from 'node:test';

import WebSocket, { WebSocketServer } from 'ws';

import * as client from '../../deploy/web/corecast.js';

const { Corecast, CorecastError } = client;

/**
 * Runs a test with a server that hands each message to `answer(object, socket, connection)` and a client of it.
 * `connection` counts from 1. What `answer` returns is sent.
 */
async function withServer(answer, options, body) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => 'corecast.v1.json' });
  const requests = [];
  let connection = 0;
  server.on('connection', (socket, request) => {
    const number = (connection += 1);
    requests.push({ url: request.url });
    socket.on('message', (data) => {
      const command = JSON.parse(data);
      requests.push(command);
      for (const reply of [answer(command, socket, number)].flat()) {
        if (reply !== undefined) socket.send(typeof reply === 'string' || reply instanceof Uint8Array ? reply : JSON.stringify(reply));
      }
    });
  });
  await new Promise((resolve) => server.once('listening', resolve));
  const push = new Corecast(`ws://127.0.0.1:${server.address().port}/ws${options.query ?? ''}`, { WebSocket, minDelay: 5, maxDelay: 20, ...options });
  try {
    await body(push, requests, server);
  } finally {
    push.close();
    for (const socket of server.clients) socket.terminate();
    server.close();
  }
}

const next = (push, type, suits = () => true) => new Promise((resolve) => {
  push.addEventListener(type, function listener({ detail }) {
    if (!suits(detail)) return;
    push.removeEventListener(type, listener);
    resolve(detail);
  });
});

const ok = ({ id, topics, type }) => ({ type: 'ok', verb: type.toUpperCase(), topics, id });
const code = (wanted) => (error) => error instanceof CorecastError && error.code === wanted;

test('answers are matched by what they answer, in whatever order they come', async () => {
  const held = [];
  await withServer((command) => {
    if (command.type !== 'pub') return ok(command);
    held.push(command);
    if (held.length < 3) return undefined;
    return [
      { type: 'ok', verb: 'SUB', topics: ['unasked'], from: 'url' },
      { type: 'err', code: 'busy', text: 'later', id: held[1].id },
      { type: 'ok', id: 'unknown', publish_id: 'x' },
      ...[held[2], held[0]].map(({ id, payload }) => ({ type: 'ok', id, publish_id: `for ${payload}` })),
    ];
  }, {}, async (push) => {
    await next(push, 'ready');
    const [a, b, c] = await Promise.allSettled(['a', 'b', 'c'].map((payload) => push.publish('t', payload)));
    assert.deepEqual([a.value, b.reason.code, b.reason.message, c.value], ['for a', 'busy', 'later', 'for c']);
  });
});

test('what can not be read is told, and harms nothing', async () => {
  const errors = [];
  const noise = ['{"type":', '[]', '7', 'null', '""', '{}', new Uint8Array([1, 2]), '{"type":"msg","topic":"t","payload_base64":"%"}'];
  await withServer((command) => (command.type === 'pub' ? [...noise, { type: 'later', x: 1 }, { type: 'err', code: 'not-utf8', text: 'no' }, { ...ok(command), publish_id: '1' }] : ok(command)), {}, async (push) => {
    push.addEventListener('error', ({ detail }) => errors.push(detail.code));
    await next(push, 'ready');
    assert.equal(await push.publish('t', 'x'), '1');
    assert.deepEqual(errors, [...noise.map(() => 'bad-message'), 'not-utf8']);
  });
});

test('topics are asked for in bounded pieces, again on each connection', async () => {
  const topics = Array.from({ length: 1000 }, (_, n) => `${n}/${'ü'.repeat(n % 100)}`);
  await withServer(ok, { topics }, async (push, requests, server) => {
    await next(push, 'ready');
    for (let round = 0; round < 2; round += 1) {
      const subs = requests.splice(0).filter(({ type }) => type === 'sub');
      assert.deepEqual(subs.flatMap((sub) => sub.topics), topics);
      for (const sub of subs) {
        assert.ok(sub.topics.length <= 64 && Buffer.byteLength(JSON.stringify(sub.topics)) <= 4200, `${sub.topics.length} topics`);
      }
      const ready = next(push, 'ready');
      for (const socket of server.clients) socket.close(1001, 'drain');
      await ready;
    }
  });
});

test('a server whose messages are small gets smaller pieces', async () => {
  const topics = Array.from({ length: 100 }, (_, n) => `${n}${'x'.repeat(90)}`);
  await withServer((command, socket) => {
    if (JSON.stringify(command).length <= 700) return ok(command);
    socket.close(1009, 'message-too-large');
    return undefined;
  }, { topics }, async (push) => {
    assert.equal((await next(push, 'ready')).topics.length, 100);
  });
});

test('a topic that is refused later takes no other with it', async () => {
  const refused = [];
  await withServer((command, _, connection) => {
    const isBad = connection > 1 && command.topics.some((topic) => Number(topic) % 30 === 7);
    return isBad ? { type: 'err', code: 'forbidden', text: 'not for you', id: command.id } : ok(command);
  }, { topics: Array.from({ length: 100 }, (_, n) => `${n}`) }, async (push, requests, server) => {
    push.addEventListener('refused', ({ detail }) => refused.push(detail));
    await next(push, 'ready');
    assert.deepEqual(refused, []);
    const ready = next(push, 'ready');
    for (const socket of server.clients) socket.terminate();
    assert.equal((await ready).topics.length, 96);
    assert.deepEqual(refused, ['7', '37', '67', '97'].map((topic) => ({ topic, code: 'forbidden', text: 'not for you' })));
    // No more than a search by halves takes.
    assert.ok(requests.filter(({ type }) => type === 'sub').length <= 2 + 4 * 2 * 7 + 4);
  });
});

test('a subscription that is made or ended while others are under way is settled right', async () => {
  let hold;
  await withServer((command, socket) => {
    if (command.type === 'sub' && command.topics.includes('slow')) {
      hold = () => socket.send(JSON.stringify(ok(command)));
      return undefined;
    }
    return ok(command);
  }, {}, async (push, requests) => {
    await next(push, 'ready');
    const slow = push.subscribe('slow');
    const behind = push.subscribe('behind', 'ended');
    const ended = push.subscribe('ended');
    await push.unsubscribe('slow', 'ended');
    const again = push.subscribe('slow');
    const first = hold;
    hold = undefined;
    first();
    while (!hold) await new Promise((resolve) => setTimeout(resolve, 1));
    hold();
    assert.deepEqual([await slow, await behind, await ended, await again], [false, false, false, true]);
    assert.deepEqual(push.topics, ['behind', 'slow']);
    const asked = requests.filter(({ type }) => type).map(({ type, topics }) => [type, ...topics]);
    assert.deepEqual(asked, [['sub', 'slow'], ['unsub', 'slow', 'ended'], ['sub', 'behind', 'slow']]);
  });
});

test('a request whose answer never comes is an error, and its subscription comes back', async () => {
  await withServer((command, socket, connection) => {
    if (connection > 1) return ok(command);
    if (command.type === 'sub') return undefined;
    socket.terminate();
    return undefined;
  }, {}, async (push) => {
    await next(push, 'status', ({ state }) => state === 'open');
    const subscribed = push.subscribe('news');
    await assert.rejects(push.publish('news', 'x'), code('lost'));
    await assert.rejects(push.publish('news', 'x'), code('not-connected'));
    assert.equal(await subscribed, true);
  });
});

test('a server that falls silent, or answers nothing, is left', async () => {
  let pinged = 0;
  await withServer((command, _, connection) => {
    if (command.type === 'ping') pinged += 1;
    return connection === 1 ? undefined : ok(command);
  }, { silence: 20, patience: 2000 }, async (push) => {
    const { code: closed, reason } = await next(push, 'status', ({ state }) => state === 'waiting');
    assert.deepEqual([closed, reason, pinged], [0, 'no answer', 1]);
    await next(push, 'status', ({ state }) => state === 'open');
  });
  // One that goes on sending, too.
  await withServer((command, socket, connection) => {
    if (connection > 1) return ok(command);
    const timer = setInterval(() => socket.send('{"type":"all","payload":"x"}'), 5);
    socket.on('close', () => clearInterval(timer));
    return undefined;
  }, { topics: ['news'], patience: 100 }, async (push) => {
    assert.equal((await next(push, 'status', ({ state }) => state === 'waiting')).reason, 'no answer');
    await next(push, 'ready');
  });
});

test('each close tells its code and its reason, and only who is kicked stays away', async () => {
  const closes = [[1001, 'drain'], [1013, 'full'], [1008, 'slow-consumer'], [4000, ''], [1008, 'kicked']];
  const left = [...closes];
  const byes = [];
  await withServer((command, socket) => {
    const [number, reason] = left.shift();
    socket.send(JSON.stringify({ type: 'bye', reason: reason || 'unknown' }));
    socket.close(number, reason);
    return undefined;
  }, { topics: ['news'] }, async (push) => {
    const seen = [];
    push.addEventListener('bye', ({ detail }) => byes.push(detail.reason));
    push.addEventListener('status', ({ detail: { state, code: number, reason } }) => number !== undefined && seen.push([state, number, reason]));
    await next(push, 'status', ({ state }) => state === 'closed');
    assert.deepEqual(seen, closes.map(([number, reason]) => [reason === 'kicked' ? 'closed' : 'waiting', number, reason || 'unknown']));
    assert.deepEqual(byes, ['drain', 'full', 'slow-consumer', 'unknown', 'kicked']);
    await assert.rejects(push.subscribe('x'), code('closed'));
    await assert.rejects(push.publish('x', 'y'), code('closed'));
    await push.unsubscribe('news');
  });
});

test('the caller may decide when to come back', async () => {
  await withServer((command, socket) => void socket.close(1008, 'kicked'), { topics: ['a'], shouldRetry: ({ code: number }) => number === 1008 && (tries += 1) < 3 }, async (push) => {
    await next(push, 'status', ({ state }) => state === 'closed');
    assert.equal(tries, 3);
  });
});
let tries = 0;

test('topics in the address are topics of the client, and the rest of it stays', async () => {
  await withServer(ok, { query: '?topic=a%20b&token=x+y&topic=c#part', topics: ['d'] }, async (push, requests) => {
    assert.deepEqual((await next(push, 'ready')).topics, ['d', 'a b', 'c']);
    assert.equal(requests[0].url, '/ws?token=x+y');
  });
  for (const wrong of ['ftp://x/', 'nonsense', '']) assert.throws(() => new Corecast(wrong, { WebSocket }), TypeError);
  assert.throws(() => new Corecast('ws://127.0.0.1:1/', { WebSocket, topics: [1] }), TypeError);
});

test('requests that wait are bounded', async () => {
  await withServer((command) => (command.type === 'pub' ? undefined : ok(command)), {}, async (push) => {
    await next(push, 'ready');
    const waiting = Array.from({ length: 4096 }, () => push.publish('t', 'x').catch((error) => error.code));
    await assert.rejects(push.publish('t', 'x'), code('busy'));
    assert.equal(await push.subscribe('t'), true, 'subscriptions are not among them');
    push.close();
    assert.deepEqual(new Set(await Promise.all(waiting)), new Set(['lost']));
  });
});

test('the types name what there is', async () => {
  const types = await readFile(new URL('../../deploy/web/corecast.d.ts', import.meta.url), 'utf8');
  const declared = (name) => {
    const body = types.slice(types.indexOf(`export class ${name} `), types.indexOf('\n}\n', types.indexOf(`export class ${name} `)));
    return new Set([...body.matchAll(/^ {2}(?:readonly )?(\w+)[(:?<]/gm)].map(([, member]) => member));
  };
  const members = Object.getOwnPropertyNames(Corecast.prototype);
  assert.deepEqual(declared('Corecast'), new Set([...members, 'addEventListener', 'removeEventListener']));
  const error = new CorecastError('code', 'text', { topic: 't', refused: [] });
  assert.deepEqual(declared('CorecastError'), new Set(['constructor', ...Object.keys(error)]));
  assert.deepEqual(Object.keys(client).sort(), ['Corecast', 'CorecastError']);
});
