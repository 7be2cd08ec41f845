/** What a {@link Corecast} client can be told. */
export interface CorecastOptions {
  /** Topics to subscribe to, from the first connection on. */
  topics?: Iterable<string>;
  /** Pause before the first new try at the most, in ms; it doubles with each try. Default 1000. */
  minDelay?: number;
  /** Pause between two tries at the most, in ms. Default 30000. */
  maxDelay?: number;
  /** After so many ms without a message the server is asked whether it lives. Default 25000. */
  silence?: number;
  /** How long a connect, and an answer, may take, in ms. Default 10000. */
  patience?: number;
  /** Whether to connect again after a close. By default always, unless the reason is "kicked". */
  shouldRetry?(close: { code: number; reason: string }): boolean;
  /** The WebSocket to use where there is no global one, such as that of Node's package `ws`. */
  WebSocket?: new (url: string, protocols?: string | string[]) => WebSocketLike;
}

/** What is used of a WebSocket. */
export interface WebSocketLike {
  onopen: ((event: any) => unknown) | null;
  onmessage: ((event: any) => unknown) | null;
  onerror: ((event: any) => unknown) | null;
  onclose: ((event: any) => unknown) | null;
  send(data: string): void;
  close(): void;
}

export type CorecastState = "connecting" | "open" | "waiting" | "closed";

/** A message; `payload` is bytes where it is not text. */
export type CorecastMessage =
  | { type: "msg"; topic: string; payload: string | Uint8Array }
  | { type: "all" | "self"; topic: undefined; payload: string | Uint8Array };

/** So many messages of a topic did not reach this client; topic `*`: not of a single topic. */
export interface CorecastGap {
  topic: string;
  count: number;
  reason: string;
}

/** The server refused a topic, which the client then forgets. `code` is for programs, `text` for people. */
export interface CorecastRefusal {
  topic: string;
  code: string;
  text: string;
}

/** `delay` in ms until the next try; `code` and `reason` are those of the close. */
export type CorecastStatus =
  | { state: "connecting" | "open"; attempt: number }
  | { state: "waiting"; attempt: number; delay: number; code: number; reason: string }
  | { state: "closed"; attempt: number; code: number; reason: string };

export interface CorecastEventMap {
  message: CustomEvent<CorecastMessage>;
  gap: CustomEvent<CorecastGap>;
  /** All topics are confirmed or refused on this connection: load afresh now what must be whole. */
  ready: CustomEvent<{ topics: string[] }>;
  refused: CustomEvent<CorecastRefusal>;
  /** The server says why it will close the connection. */
  bye: CustomEvent<{ reason: string }>;
  /** The server complains of something that was not a request of this client, or sent what can't be read. */
  error: CustomEvent<{ code: string; text: string }>;
  status: CustomEvent<CorecastStatus>;
}

type Listener<E> = ((this: Corecast, event: E) => unknown) | { handleEvent(event: E): unknown } | null;
type ListenerOptions = boolean | { capture?: boolean; once?: boolean; passive?: boolean; signal?: AbortSignal };

/** Why something was not done. */
export class CorecastError extends Error {
  constructor(code: string, text: string, more?: { topic?: string; refused?: CorecastRefusal[] });
  readonly name: "CorecastError";
  /**
   * The server's error code, or: "closed", the client was closed; "not-connected", there is no connection now; "lost", it
   * was lost before the answer, so it may have been done or not; "busy", too many requests wait.
   */
  readonly code: string;
  /** Of {@link Corecast.subscribe}: the first topic that was refused. */
  readonly topic?: string;
  /** Of {@link Corecast.subscribe}: all that were refused. */
  readonly refused?: CorecastRefusal[];
}

/** A client for corecast: one WebSocket that comes back by itself, with its topics. */
export class Corecast extends EventTarget {
  /**
   * Connects at once, and again whenever the connection is lost.
   * @param url the server's WebSocket address, as in "wss://push.example.com/ws"; `topic` parameters in it become topics
   */
  constructor(url: string | URL, options?: CorecastOptions);

  readonly state: CorecastState;

  /** The topics subscribed to, now and after each new connection; those that were refused are not among them. */
  readonly topics: string[];

  /**
   * Subscribes to topics, as soon as there is a connection. Resolves to true once the server has confirmed all of them,
   * to false if one was given up before, by `unsubscribe` or a close.
   * @throws CorecastError where it refuses some: the others hold, and `refused` names those
   */
  subscribe(...topics: string[]): Promise<boolean>;

  /** Ends subscriptions. Resolves when none of these topics can bring a message any more. */
  unsubscribe(...topics: string[]): Promise<void>;

  /**
   * Publishes to a topic, where the server lets clients do so; bytes arrive as bytes. Resolves to the publish id once the
   * server has accepted it. Nothing is kept for later.
   * @throws CorecastError where the server refuses, or there is no connection
   */
  publish(topic: string, payload: string | ArrayBuffer | ArrayBufferView): Promise<string>;

  /** Publishes to everyone. */
  broadcast(payload: string | ArrayBuffer | ArrayBufferView): Promise<string>;

  /** Asks for the connection's id, which the server's API takes to reach it. Each new connection has another one. */
  connectionId(): Promise<string>;

  /** Closes the connection for good. */
  close(): void;

  addEventListener<K extends keyof CorecastEventMap>(type: K, listener: Listener<CorecastEventMap[K]>, options?: ListenerOptions): void;
  addEventListener(type: string, listener: Listener<Event>, options?: ListenerOptions): void;
  removeEventListener<K extends keyof CorecastEventMap>(type: K, listener: Listener<CorecastEventMap[K]>, options?: ListenerOptions): void;
  removeEventListener(type: string, listener: Listener<Event>, options?: ListenerOptions): void;
}
