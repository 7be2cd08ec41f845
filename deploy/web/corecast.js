// A client for corecast in the browser: one WebSocket that comes back by itself. Copy this file; it needs nothing else.
//
//   import { Corecast } from "./corecast.js";
//
//   const push = new Corecast("wss://push.example.com/ws", { topics: ["news"] });
//   push.addEventListener("message", ({ detail }) => console.log(detail.topic, detail.payload));
//   push.addEventListener("gap", ({ detail }) => console.warn(`missed ${detail.count} of ${detail.topic}`));
//   push.addEventListener("status", ({ detail }) => console.log(detail.state));
//   push.subscribe("sport");
//
// Events, each with its particulars in `detail`:
//
//   message  { type, topic, payload }   type: "msg" (of a topic), "all" (to everyone), "self" (to this connection);
//                                       payload: a string, or a Uint8Array where the message is not text
//   gap      { topic, count, reason }   so many messages did not reach this client; what was sent while the connection
//                                       was down is missed without a gap, so after "open" load afresh what must be whole
//   status   { state, attempt, delay, code, reason }
//                                       state: "connecting", "open", "waiting" (the next try is in `delay` ms), "closed"

const PROTOCOL = "corecast.v1.json";

export class Corecast extends EventTarget {
  #url;
  #options;
  #topics = new Set();
  #socket = null;
  #state = "closed";
  #attempt = 0;
  #retryTimer = 0;
  #silenceTimer = 0;
  #openedAt = 0;
  // Requests without an answer yet. The server answers in the order of the requests.
  #pending = [];

  /**
   * Connects at once, and again whenever the connection is lost.
   *
   * url: the server's WebSocket address, such as "wss://push.example.com/ws".
   * options: topics       topics to subscribe to
   *          minDelay     pause before the first new try at the most, in ms; it doubles with each try
   *          maxDelay     pause between two tries at the most, in ms
   *          silence      after so many ms without a message the server is asked whether it lives
   *          patience     how long it may take to answer, in ms
   */
  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = { minDelay: 1000, maxDelay: 30000, silence: 25000, patience: 10000, ...options };
    for (const topic of options.topics ?? []) this.#topics.add(topic);
    // A network that is back is a reason not to wait any longer.
    globalThis.addEventListener?.("online", this.#retryNow);
    this.#connect();
  }

  /** "connecting", "open", "waiting" or "closed". */
  get state() {
    return this.#state;
  }

  /** The topics subscribed to, now and after each new connection. */
  get topics() {
    return [...this.#topics];
  }

  /** Subscribes to topics. Without a connection that happens as soon as there is one. */
  subscribe(...topics) {
    for (const topic of topics) this.#topics.add(topic);
    return this.#state === "open" ? this.#request({ type: "sub", topics }) : Promise.resolve();
  }

  /** Ends subscriptions. */
  unsubscribe(...topics) {
    for (const topic of topics) this.#topics.delete(topic);
    return this.#state === "open" ? this.#request({ type: "unsub", topics }) : Promise.resolve();
  }

  /**
   * Publishes a string or a Uint8Array to a topic, where the server lets clients do so. Resolves to the publish id once
   * the server has accepted it. Nothing is kept for later: without a connection it fails.
   */
  async publish(topic, payload) {
    const reply = await this.#request({ type: "pub", topic, ...encode(payload) });
    return reply.id;
  }

  /** Publishes to everyone. */
  async broadcast(payload) {
    const reply = await this.#request({ type: "cast", ...encode(payload) });
    return reply.id;
  }

  /** Closes the connection for good. */
  close() {
    globalThis.removeEventListener?.("online", this.#retryNow);
    clearTimeout(this.#retryTimer);
    this.#drop();
    this.#setState("closed", { code: 1000, reason: "" });
  }

  #connect() {
    this.#setState("connecting");
    const socket = new WebSocket(this.#url, PROTOCOL);
    this.#socket = socket;
    // A server that takes the connection and says nothing is as good as none.
    this.#silenceTimer = setTimeout(() => this.#lost(socket, 0, "no answer"), this.#options.patience);
    socket.onopen = () => this.#opened(socket);
    socket.onmessage = (event) => this.#received(socket, event.data);
    socket.onclose = (event) => this.#lost(socket, event.code, event.reason);
  }

  #opened(socket) {
    if (socket !== this.#socket) return;
    this.#openedAt = Date.now();
    this.#setState("open");
    if (this.#topics.size > 0) {
      this.#request({ type: "sub", topics: this.topics }).catch(() => {});
    }
    this.#listen(socket);
  }

  // Browsers answer the server's pings but don't show them, so silence is broken from here.
  #listen(socket) {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => {
      this.#silenceTimer = setTimeout(() => this.#lost(socket, 0, "no answer"), this.#options.patience);
      this.#request({ type: "ping" }).catch(() => {});
    }, this.#options.silence);
  }

  #received(socket, data) {
    if (socket !== this.#socket) return;
    this.#listen(socket);
    // The server sends text; whatever else came is not of this protocol.
    const event = typeof data === "string" ? JSON.parse(data) : {};
    switch (event.type) {
      case "msg":
      case "all":
      case "self":
        this.#emit("message", { type: event.type, topic: event.topic, payload: decode(event) });
        break;
      case "gap":
        this.#emit("gap", { topic: event.topic, count: event.count, reason: event.reason });
        break;
      case "ok":
      case "pong":
      case "id":
        this.#pending.shift()?.resolve(event);
        break;
      case "err":
        this.#pending.shift()?.reject(Object.assign(new Error(event.text), { code: event.code }));
        break;
      // "bye" announces the close that follows; the close tells the same.
    }
  }

  #lost(socket, code, reason) {
    if (socket !== this.#socket) return;
    this.#drop();
    // Whoever was sent away by name is not wanted back.
    if (reason === "kicked") {
      this.#setState("closed", { code, reason });
      return;
    }
    // A connection that held for a while was a good one: the next try comes soon.
    if (this.#openedAt > 0 && Date.now() - this.#openedAt > 10000) this.#attempt = 0;
    this.#openedAt = 0;
    const { minDelay, maxDelay } = this.#options;
    const most = Math.min(maxDelay, minDelay * 2 ** this.#attempt);
    this.#attempt += 1;
    // Anywhere in the span, so that clients that lose a server together don't come back together.
    const delay = Math.round(most / 10 + Math.random() * most * 0.9);
    this.#retryTimer = setTimeout(() => this.#connect(), delay);
    this.#setState("waiting", { delay, code, reason });
  }

  #retryNow = () => {
    if (this.#state !== "waiting") return;
    clearTimeout(this.#retryTimer);
    this.#connect();
  };

  #drop() {
    clearTimeout(this.#silenceTimer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const { reject } of this.#pending.splice(0)) reject(new Error("the connection was lost"));
  }

  #request(object) {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open") {
        reject(new Error("there is no connection"));
        return;
      }
      this.#pending.push({ resolve, reject });
      this.#socket.send(JSON.stringify(object));
    });
  }

  #setState(state, detail = {}) {
    this.#state = state;
    this.#emit("status", { state, attempt: this.#attempt, ...detail });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function encode(payload) {
  if (typeof payload === "string") return { payload };
  let text = "";
  for (const byte of payload) text += String.fromCharCode(byte);
  return { payload_base64: btoa(text) };
}

function decode({ payload, payload_base64 }) {
  if (payload_base64 === undefined) return payload;
  return Uint8Array.from(atob(payload_base64), (character) => character.charCodeAt(0));
}
