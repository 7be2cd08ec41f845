// Speaks to a hub with Node's package `ws`. The argument: the server's address, as 127.0.0.1:8080.

import assert from 'node:assert/strict';
import { once } from 'node:events';

import WebSocket from 'ws';

const url = `ws://${process.argv[2]}/ws`;
setTimeout(() => assert.fail('it takes too long'), 60000).unref();

/** A socket whose messages are kept until they are asked for. */
async function open(target, protocols, options) {
  const socket = new WebSocket(target, protocols, options);
  const kept = [];
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    const message = isBinary ? data : data.toString();
    if (waiting.length > 0) waiting.shift()(message);
    else kept.push(message);
  });
  socket.next = () => (kept.length > 0 ? Promise.resolve(kept.shift()) : new Promise((resolve) => waiting.push(resolve)));
  await once(socket, 'open');
  return socket;
}

const text = await open(`${url}?topic=a`);
assert.equal(text.extensions, 'permessage-deflate', 'compression, as the package offers it');
assert.equal(await text.next(), 'OK SUB a');
text.send('PI', { fin: false });
text.ping('between');
assert.equal((await once(text, 'pong'))[0].toString(), 'between');
text.send('NG fragments', { fin: true });
assert.equal(await text.next(), 'PONG fragments');
text.send(Buffer.from('PING bytes'));
assert.deepEqual(await text.next(), Buffer.from('PONG bytes'));

const json = await open(url, ['corecast.v1.json']);
assert.equal(json.protocol, 'corecast.v1.json');
json.send(JSON.stringify({ type: 'pub', topic: 'a', payload_base64: '/w==' }));
assert.equal(JSON.parse(await json.next()).verb, 'PUB');
assert.deepEqual(await text.next(), Buffer.from('MSG a \xff', 'latin1'));
json.send(JSON.stringify({ type: 'pub', topic: 'a', payload_base64: '' }));
assert.equal(JSON.parse(await json.next()).verb, 'PUB');
assert.deepEqual(await text.next(), Buffer.from('MSG a '));

// Long messages are compressed both ways, by each side as it likes.
const long = JSON.stringify(Array.from({ length: 500 }, (_, n) => ({ symbol: `S${n % 7}`, price: n * 1.5, side: 'buy' })));
text.send(`PING ${long}`);
assert.equal(await text.next(), `PONG ${long}`);
json.send(JSON.stringify({ type: 'pub', topic: 'a', payload: long }), { compress: false });
assert.equal(JSON.parse(await json.next()).verb, 'PUB');
assert.equal(await text.next(), `MSG a ${long}`);
text.send('PI', { fin: false });
text.ping('between');
assert.equal((await once(text, 'pong'))[0].toString(), 'between');
text.send(`NG ${long}`, { fin: true });
assert.equal(await text.next(), `PONG ${long}`);

// Without it, and with a small window.
for (const [topic, perMessageDeflate, extensions] of [
  ['plain', false, ''],
  ['small', { serverMaxWindowBits: 8, threshold: 0 }, 'permessage-deflate'],
  ['other', { serverMaxWindowBits: 12, clientMaxWindowBits: 9, serverNoContextTakeover: true, threshold: 0 }, 'permessage-deflate'],
]) {
  const other = await open(`${url}?topic=${topic}`, [], { perMessageDeflate });
  assert.equal(other.extensions, extensions);
  assert.equal(await other.next(), `OK SUB ${topic}`);
  json.send(JSON.stringify({ type: 'pub', topic, payload: long }));
  assert.equal(JSON.parse(await json.next()).verb, 'PUB');
  assert.equal(await other.next(), `MSG ${topic} ${long}`);
  other.send(`PING ${long}`);
  assert.equal(await other.next(), `PONG ${long}`);
  other.close(1000);
  await once(other, 'close');
}

text.close(1000, 'done');
const [code, reason] = await once(text, 'close');
assert.deepEqual([code, reason.toString()], [1000, '']);

// A text that is not UTF-8.
json.send(Buffer.from([0xff]), { binary: false });
const [badCode, badReason] = await once(json, 'close');
assert.deepEqual([badCode, badReason.toString()], [1007, 'not-utf8']);

const refused = new WebSocket(url, ['mqtt']);
const [error] = await once(refused, 'error');
assert.match(error.message, /400/);

console.log('all is well');
