// A client for corecast in browsers, workers and Node: one WebSocket that comes back by itself, with its topics. This
// file needs nothing else; README.md beside it has the whole interface, corecast.d.ts its types.
//
//   import { Corecast } from "./corecast.js";
//
//   const push = new Corecast("wss://push.example.com/ws", { topics: ["news"] });
//   push.addEventListener("message", ({ detail }) => console.log(detail.topic, detail.payload));
//   push.addEventListener("gap", ({ detail }) => console.warn(`missed ${detail.count} of ${detail.topic}`));
//   push.addEventListener("refused", ({ detail }) => console.error(`${detail.topic}: ${detail.text}`));
//   await push.subscribe("sport");

const PROTOCOL = "corecast.v1.json";

// One SUB names so many topics at the most, in so many bytes. Messages of a server have a limit of their own: a close
// for too large a message halves the bytes.
const BATCH_TOPICS = 64;
const BATCH_BYTES = 4096;
const BATCH_BYTES_MIN = 256;

// Requests that may wait for an answer at a time.
const PENDING_MAX = 4096;

// A server that sends messages but no answers is given up after so many times the patience.
const STUCK = 6;

// A connection that held for so long was a good one: the next try comes soon. In ms.
const GOOD_AFTER = 10000;

const DEFAULTS = { minDelay: 1000, maxDelay: 30000, silence: 25000, patience: 10000 };

const now = () => performance.now();

/** Why something was not done. `code` is the server's word, or one of "closed", "lost", "not-connected", "busy". */
export class CorecastError extends Error {
  constructor(code, text, more = {}) {
    super(text);
    this.name = "CorecastError";
    this.code = code;
    Object.assign(this, more);
  }
}

export class Corecast extends EventTarget {
  #url;
  #options;
  #WebSocket;
  #socket = null;
  #state = "closed";
  #attempt = 0;
  #retryTimer = 0;
  // Name → { name, isOn, answer }. `answer` is settled when the server has confirmed or refused the topic.
  #topics = new Map();
  // Those that the server has not confirmed on this connection, in the order in which they are asked for.
  #wanted = new Set();
  #isAsking = false;
  #isReady = false;
  // The refusal that says that further topics are too many; until one is given up.
  #full = null;
  #batchBytes = BATCH_BYTES;
  // Id → { resolve, reject }.
  #pending = new Map();
  #lastId = 0;
  #openedAt = 0;
  #heardAt = 0;
  // When the last answer came, or the first request was sent that waits for one.
  #waitingSince = 0;
  #watchTimer = 0;
  #watchDue = 0;
  #hadGrace = false;
  #bye = "";
  #problem = "";

  /** Connects at once, and again whenever the connection is lost. */
  constructor(url, options = {}) {
    super();
    const topics = [...(options.topics ?? [])];
    this.#url = address(url, topics);
    this.#options = { ...DEFAULTS, ...options };
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new Error("there is no WebSocket here; give one as options.WebSocket, such as Node's ws");
    topics.forEach(check);
    for (const name of topics) this.#want(name);
    this.#connect();
    // A network that is back is a reason not to wait any longer.
    globalThis.addEventListener?.("online", this.#retryNow);
  }

  /** "connecting", "open", "waiting" or "closed". */
  get state() {
    return this.#state;
  }

  /** The topics subscribed to, now and after each new connection; those that were refused are not among them. */
  get topics() {
    return [...this.#topics.keys()];
  }

  /**
   * Subscribes to topics, as soon as there is a connection. Resolves to true once the server has confirmed all of them,
   * to false if one was given up before. Where it refuses some, the others hold, and the error names those in `refused`.
   */
  async subscribe(...topics) {
    topics.forEach(check);
    if (this.#state === "closed") throw new CorecastError("closed", "the client is closed");
    const answers = topics.map((name) => this.#want(name).answer.promise);
    this.#ask();
    const settled = await Promise.allSettled(answers);
    const refused = settled.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
    if (refused.length === 1) throw refused[0];
    if (refused.length > 1) {
      const { code, message } = refused[0];
      throw new CorecastError(code, `${refused.length} topics were refused; the first: ${message}`, {
        topic: refused[0].topic,
        refused: refused.flatMap((error) => error.refused),
      });
    }
    return settled.every(({ value }) => value);
  }

  /** Ends subscriptions. Resolves when none of these topics can bring a message any more. */
  async unsubscribe(...topics) {
    topics.forEach(check);
    const ended = topics.map((name) => this.#topics.get(name)).filter((topic) => topic !== undefined);
    for (const topic of ended) {
      this.#topics.delete(topic.name);
      this.#wanted.delete(topic);
      topic.answer.resolve(false);
    }
    if (ended.length > 0) this.#full = null;
    if (this.#state !== "open") return;
    const requests = [...this.#batches(ended)].map((batch) => this.#request({ type: "unsub", topics: names(batch) }));
    // Without the connection there is no subscription either.
    await Promise.allSettled(requests);
  }

  /**
   * Publishes a string or bytes to a topic, where the server lets clients do so. Resolves to the publish id once the
   * server has accepted it. Nothing is kept for later: without a connection it fails.
   */
  async publish(topic, payload) {
    check(topic);
    const reply = await this.#call({ type: "pub", topic: wellFormed(topic, "bad-topic"), ...encode(payload) });
    return reply.publish_id;
  }

  /** Publishes to everyone. */
  async broadcast(payload) {
    const reply = await this.#call({ type: "cast", ...encode(payload) });
    return reply.publish_id;
  }

  /** Asks for the connection's id, which the server's API takes to reach it. Each new connection has another one. */
  async connectionId() {
    const reply = await this.#call({ type: "id" });
    return reply.connection_id;
  }

  /** Closes the connection for good. */
  close() {
    if (this.#state !== "closed") this.#end(1000, "");
  }

  // ---- The connection ----

  #connect() {
    // May throw where the page may not connect; the first time, that is the caller's to see.
    const socket = new this.#WebSocket(this.#url, PROTOCOL);
    this.#socket = socket;
    this.#heardAt = now();
    this.#bye = this.#problem = "";
    socket.onopen = () => socket === this.#socket && this.#opened();
    socket.onmessage = (event) => socket === this.#socket && this.#received(event.data);
    // Browsers tell nothing here; others say why.
    socket.onerror = (event) => socket === this.#socket && (this.#problem = event?.message ?? "");
    socket.onclose = ({ code, reason }) =>
      socket === this.#socket && this.#lost(code, reason || this.#bye || this.#problem);
    this.#setState("connecting");
    this.#watch();
  }

  #opened() {
    this.#openedAt = this.#heardAt = now();
    this.#isReady = false;
    this.#full = null;
    this.#setState("open");
    this.#watch();
    this.#ask();
  }

  #received(data) {
    this.#heardAt = now();
    this.#hadGrace = false;
    const event = parse(data);
    switch (event.type) {
      case "msg":
      case "all":
      case "self":
        this.#emit("message", { type: event.type, topic: event.topic, payload: event.payload });
        break;
      case "gap":
        this.#emit("gap", { topic: event.topic, count: event.count, reason: event.reason });
        break;
      case "ok":
      case "pong":
      case "id":
        this.#answer(event.id)?.resolve(event);
        break;
      case "err": {
        const request = this.#answer(event.id);
        if (request) request.reject(new CorecastError(event.code, event.text));
        else this.#emit("error", { code: event.code, text: event.text });
        break;
      }
      case "bye":
        // The close that follows tells the same, where nothing comes between.
        this.#bye = event.reason;
        this.#emit("bye", { reason: event.reason });
        break;
      case undefined:
        this.#emit("error", { code: "bad-message", text: "the server sent what is not a message of this protocol" });
    }
  }

  #lost(code, reason) {
    this.#drop();
    if (code === 1009) this.#batchBytes = Math.max(BATCH_BYTES_MIN, this.#batchBytes / 2);
    // Whoever was sent away by name is not wanted back.
    const { minDelay, maxDelay, shouldRetry = () => reason !== "kicked" } = this.#options;
    if (!shouldRetry({ code, reason })) {
      this.#end(code, reason);
      return;
    }
    if (this.#openedAt > 0 && now() - this.#openedAt > GOOD_AFTER) this.#attempt = 0;
    this.#openedAt = 0;
    const most = Math.min(maxDelay, minDelay * 2 ** this.#attempt);
    this.#attempt += 1;
    // Anywhere in the span, so that clients that lose a server together don't come back together.
    const delay = Math.round(most / 10 + Math.random() * most * 0.9);
    this.#retryTimer = setTimeout(this.#retryNow, delay);
    this.#setState("waiting", { delay, code, reason });
  }

  #retryNow = () => {
    if (this.#state !== "waiting") return;
    clearTimeout(this.#retryTimer);
    try {
      this.#connect();
    } catch (error) {
      this.#lost(0, error.message);
    }
  };

  #drop() {
    clearTimeout(this.#watchTimer);
    this.#watchDue = Infinity;
    this.#hadGrace = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const topic of this.#topics.values()) {
      if (topic.isOn) Object.assign(topic, { isOn: false, answer: deferred() });
      this.#wanted.add(topic);
    }
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    const error = new CorecastError("lost", "the connection was lost before the answer came");
    for (const { reject } of pending) reject(error);
  }

  #end(code, reason) {
    globalThis.removeEventListener?.("online", this.#retryNow);
    clearTimeout(this.#retryTimer);
    // First, so that nothing that ends now can begin anything.
    this.#state = "closed";
    this.#drop();
    for (const topic of this.#topics.values()) topic.answer.resolve(false);
    this.#setState("closed", { code, reason });
  }

  // ---- Whether the other side lives ----
  // Browsers answer the server's pings but don't show them, so silence is broken from here.

  #due() {
    const { silence, patience } = this.#options;
    if (this.#state === "connecting") return this.#heardAt + patience;
    if (this.#pending.size === 0) return this.#heardAt + silence;
    return Math.min(Math.max(this.#heardAt, this.#waitingSince) + patience, this.#waitingSince + STUCK * patience);
  }

  #watch() {
    clearTimeout(this.#watchTimer);
    this.#watchDue = this.#due();
    this.#watchTimer = setTimeout(() => this.#look(), Math.max(0, this.#watchDue - now()));
  }

  #look() {
    this.#watchDue = Infinity;
    const late = now() - this.#due();
    if (late < 0) {
      this.#watch();
    } else if (late > this.#options.patience && !this.#hadGrace) {
      // This process slept, or its tab: what came meanwhile is not read yet.
      this.#hadGrace = true;
      this.#heardAt = this.#waitingSince = now();
      this.#watch();
    } else if (this.#state === "connecting" || this.#pending.size > 0) {
      this.#lost(0, "no answer");
    } else {
      // Waiting for its answer is what is watched from here on.
      this.#request({ type: "ping" }).catch(() => {});
    }
  }

  // ---- Topics ----

  /** The topic, which is asked for if it is new. */
  #want(name) {
    let topic = this.#topics.get(name);
    if (!topic) {
      topic = { name, isOn: false, answer: deferred() };
      this.#topics.set(name, topic);
      this.#wanted.add(topic);
    }
    return topic;
  }

  /** Asks for the topics that are wanted, one batch after the other. */
  async #ask() {
    if (this.#isAsking || this.#state !== "open") return;
    this.#isAsking = true;
    const socket = this.#socket;
    try {
      while (this.#wanted.size > 0) await this.#askFor(this.#batches(this.#wanted).next().value);
    } catch {
      // The connection is gone, and the next one asks again for all of them.
    } finally {
      this.#isAsking = false;
    }
    if (this.#isReady || socket !== this.#socket || this.#state !== "open") return;
    this.#isReady = true;
    this.#emit("ready", { topics: this.topics });
  }

  /** Asks for some topics. The server takes all of them or none, so where it takes none, each half is tried. */
  async #askFor(batch) {
    const topics = batch.filter((topic) => this.#wanted.has(topic));
    if (topics.length === 0) return;
    try {
      topics.forEach(({ name }) => wellFormed(name, "bad-topic"));
      if (this.#full) throw this.#full;
      await this.#request({ type: "sub", topics: names(topics) });
    } catch (error) {
      if (["lost", "closed", "not-connected"].includes(error.code)) throw error;
      if (topics.length > 1) {
        const half = topics.length >> 1;
        await this.#askFor(topics.slice(0, half));
        await this.#askFor(topics.slice(half));
        return;
      }
      if (error.code === "too-many-topics") this.#full = error;
      this.#refuse(topics[0], error);
      return;
    }
    for (const topic of topics) {
      if (!this.#wanted.delete(topic)) continue;
      topic.isOn = true;
      topic.answer.resolve(true);
    }
  }

  #refuse(topic, { code, message }) {
    // It may have been given up while the answer was under way.
    if (!this.#wanted.delete(topic)) return;
    this.#topics.delete(topic.name);
    const refusal = { topic: topic.name, code, text: message };
    topic.answer.reject(new CorecastError(code, message, { topic: topic.name, refused: [refusal] }));
    this.#emit("refused", refusal);
  }

  /** Topics in as many pieces as it takes, each small enough for a message. */
  *#batches(topics) {
    let batch = [];
    let bytes = 0;
    for (const topic of topics) {
      const size = new TextEncoder().encode(JSON.stringify(topic.name)).length + 1;
      if (batch.length === BATCH_TOPICS || (batch.length > 0 && bytes + size > this.#batchBytes)) {
        yield batch;
        batch = [];
        bytes = 0;
      }
      batch.push(topic);
      bytes += size;
    }
    if (batch.length > 0) yield batch;
  }

  // ---- Requests ----

  /** What the caller asks for, as often as they like: bounded. */
  #call(command) {
    if (this.#pending.size >= PENDING_MAX) {
      throw new CorecastError("busy", `${PENDING_MAX} requests wait for their answers already`);
    }
    return this.#request(command);
  }

  #request(command) {
    return new Promise((resolve, reject) => {
      if (this.#state === "closed") throw new CorecastError("closed", "the client is closed");
      if (this.#state !== "open") throw new CorecastError("not-connected", "there is no connection");
      if (this.#pending.size === 0) this.#waitingSince = now();
      const id = ++this.#lastId;
      this.#pending.set(id, { resolve, reject });
      this.#socket.send(JSON.stringify({ ...command, id }));
      if (this.#due() < this.#watchDue) this.#watch();
    });
  }

  /** Takes out the request that an answer is for. */
  #answer(id) {
    const request = this.#pending.get(id);
    if (request) {
      this.#pending.delete(id);
      this.#waitingSince = now();
    }
    return request;
  }

  #setState(state, detail = {}) {
    this.#state = state;
    this.#emit("status", { state, attempt: this.#attempt, ...detail });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * The server's address, as a WebSocket wants it. Topics in it become topics of the client: in the address, a single one
 * that the server refuses would keep the client out for ever, and a browser does not tell why.
 */
function address(text, topics) {
  const url = new URL(text, globalThis.location?.href);
  url.protocol = { "http:": "ws:", "https:": "wss:" }[url.protocol] ?? url.protocol;
  if (!["ws:", "wss:"].includes(url.protocol)) {
    throw new TypeError(`${url} is not the address of a WebSocket, as in wss://push.example.com/ws`);
  }
  url.hash = "";
  topics.push(...url.searchParams.getAll("topic"));
  if (url.searchParams.has("topic")) url.searchParams.delete("topic");
  return url.href;
}

function check(topic) {
  if (typeof topic === "string") return;
  throw new TypeError(`a topic is a string, not ${topic === null ? "null" : typeof topic}`);
}

/** The same text; half of a character outside the basic plane can't be sent. */
function wellFormed(text, code) {
  if (/\p{Surrogate}/u.test(text)) throw new CorecastError(code, "the text holds half of a surrogate pair, which is not Unicode");
  return text;
}

const names = (topics) => topics.map(({ name }) => name);

/** A promise with its ends. That nobody waits for it is fine. */
function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(() => {});
  return made;
}

/** A message as an object, with its payload as the caller gets it; without a type, if it is not of this protocol. */
function parse(data) {
  try {
    const event = Object(typeof data === "string" ? JSON.parse(data) : null);
    if (event.payload_base64 !== undefined) event.payload = decode(event.payload_base64);
    return event;
  } catch {
    return {};
  }
}

function encode(payload) {
  if (typeof payload === "string") return { payload: wellFormed(payload, "not-utf8") };
  if (payload instanceof ArrayBuffer) payload = new Uint8Array(payload);
  if (!ArrayBuffer.isView(payload)) throw new TypeError("a payload is a string, an ArrayBuffer or a view of one");
  let text = "";
  for (const byte of new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength)) {
    text += String.fromCharCode(byte);
  }
  return { payload_base64: btoa(text) };
}

function decode(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
