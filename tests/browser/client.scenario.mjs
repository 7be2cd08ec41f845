// What the client module must do against a real server, wherever it runs: Node, a page, a worker. The test beside it
// restarts the server when `report` says "subscribed".

const equal = (found, wanted, what) => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`);
};

/** The first event of a kind that suits. It gives up by itself on what does not happen. */
function next(push, type, suits = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ${type} event came`)), 30000);
    const listener = ({ detail }) => {
      if (!suits(detail)) return;
      clearTimeout(timer);
      push.removeEventListener(type, listener);
      resolve(detail);
    };
    push.addEventListener(type, listener);
  });
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('nothing was refused');
}

const refusedOf = ({ refused }) => refused.map(({ topic, code }) => [topic, code]);

/**
 * @param modules { Corecast, CorecastError }
 * @param url the address of a hub that lets clients publish, and lets one have 200 topics
 * @param options of the client
 * @param report says what has been seen, and waits to be told to go on
 */
export async function run({ Corecast, CorecastError }, url, options, report) {
  const refused = [];
  const push = new Corecast(`${url}?topic=of-url&topic=bad%20url`, { ...options, topics: ['one', 'bad one', 'two'], minDelay: 50, maxDelay: 200 });
  push.addEventListener('refused', ({ detail }) => refused.push(detail));
  const early = push.subscribe('early', 'one');
  const lost = await refusal(push.publish('one', 'too early'));
  equal(lost.code, 'not-connected', 'a publish without a connection');
  const { topics } = await next(push, 'ready');
  equal(topics, ['one', 'two', 'of-url', 'early'], 'one refused topic takes no other with it');
  equal(refused.map(({ topic, code }) => [topic, code]), [['bad one', 'bad-topic'], ['bad url', 'bad-topic']], 'the refused ones are told');
  if (!refused[0].text.includes('white space')) throw new Error(`why it was refused: ${refused[0].text}`);
  equal(await early, true, 'a subscription made before the connection');

  // Every answer finds its question, whatever became of those before it.
  const [bad, id, published, good, own] = await Promise.all([
    refusal(push.subscribe('x y', 'three', '')),
    push.connectionId(),
    push.publish('nobody', 'hello'),
    push.subscribe('four'),
    refusal(push.publish('no topic', 'x')),
  ]);
  if (!(bad instanceof CorecastError)) throw new Error(`not a CorecastError: ${bad}`);
  equal(refusedOf(bad), [['x y', 'bad-topic'], ['', 'bad-topic']], 'what subscribe refuses');
  if (!/^\d+$/.test(id) || !/^\d+$/.test(published)) throw new Error(`ids: ${id}, ${published}`);
  equal([good, own.code], [true, 'bad-topic'], 'the answers behind a refusal');
  equal((await refusal(push.subscribe('half \ud800'))).code, 'bad-topic', 'half of a pair as a topic');
  equal((await refusal(push.publish('one', '\udc00'))).code, 'not-utf8', 'half of a pair as a payload');
  equal((await refusal(push.subscribe(7))).name, 'TypeError', 'a number as a topic');

  const bytes = next(push, 'message', ({ payload }) => typeof payload !== 'string');
  await push.publish('two', new Uint8Array([0xff, 0, 0xfe]).subarray(1));
  equal([...(await bytes).payload], [0, 0xfe], 'bytes');

  await push.unsubscribe('four', 'never');
  const all = next(push, 'message', ({ type }) => type === 'all');
  await push.publish('four', 'nobody reads this');
  push.addEventListener('message', ({ detail }) => equal(detail.topic === 'four', false, 'an ended subscription'));
  await push.broadcast('to everyone');
  equal((await all).payload, 'to everyone', 'a broadcast');

  // More topics than the server allows: those that fit hold, each other one is told.
  const many = Array.from({ length: 300 }, (_, n) => `many/${n}`);
  const tooMany = await refusal(push.subscribe(...many));
  const fit = 200 - topics.length - 1;
  equal(tooMany.refused.length, many.length - fit, 'the topics that did not fit');
  equal([...new Set(tooMany.refused.map(({ code }) => code))], ['too-many-topics'], 'why they did not fit');
  equal(push.topics.length, 200, 'the topics that hold');
  await push.unsubscribe('many/0');
  equal(await push.subscribe('instead'), true, 'room that was given up');

  const away = next(push, 'status', ({ state }) => state === 'waiting');
  const again = next(push, 'ready');
  await report('subscribed');
  await away;
  equal((await again).topics.length, 200, 'all topics are back');
  equal(push.topics.slice(0, 4), topics, 'the topics after a reconnect');
  for (const topic of ['one', 'two', 'of-url', 'early', 'three', 'many/7', `many/${fit - 1}`, 'instead']) {
    const message = next(push, 'message', (detail) => detail.topic === topic);
    await push.publish(topic, `again to ${topic}`);
    equal((await message).payload, `again to ${topic}`, 'a message after the reconnect');
  }

  const pending = push.subscribe('at the end'.replaceAll(' ', '-'));
  push.close();
  equal([await pending, push.state], [false, 'closed'], 'a subscription that was given up');
  equal((await refusal(push.publish('one', 'x'))).code, 'closed', 'a publish after the end');
  await report('all is well');
}
