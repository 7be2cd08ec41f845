// What must and must not pass the type check of the client module. `tsc` reads it; nothing runs it.

import { Corecast, CorecastError, type CorecastMessage, type CorecastOptions, type CorecastRefusal } from "corecast";

const options: CorecastOptions = {
  topics: new Set(["news"]),
  minDelay: 10,
  silence: 1000,
  shouldRetry: ({ code, reason }) => code !== 1008 && reason !== "kicked",
  WebSocket,
};
const push = new Corecast(new URL("wss://push.example.com/ws"), options);

push.addEventListener("message", function ({ detail }) {
  const message: CorecastMessage = detail;
  if (message.type === "msg") message.topic.toUpperCase();
  if (typeof message.payload === "string") message.payload.toUpperCase();
  else message.payload.byteLength.toFixed();
  this.close();
});
push.addEventListener("gap", ({ detail }) => detail.count.toFixed(), { once: true, signal: new AbortController().signal });
push.addEventListener("refused", ({ detail }) => [detail.topic, detail.code, detail.text].join());
push.addEventListener("ready", ({ detail }) => detail.topics.join());
push.addEventListener("bye", ({ detail }) => detail.reason.trim());
push.addEventListener("error", { handleEvent: ({ detail }) => detail.code.trim() });
push.addEventListener("status", ({ detail }) => {
  if (detail.state === "waiting") detail.delay.toFixed();
  if (detail.state === "closed") detail.reason.trim();
  // @ts-expect-error: an open connection has no delay
  if (detail.state === "open") detail.delay.toFixed();
});
push.addEventListener("of-a-subclass", (event: Event) => event.type);

export async function use(): Promise<void> {
  const held: boolean = await push.subscribe("a", "b");
  const ids: string[] = [await push.publish("a", "text"), await push.broadcast(new Uint8Array([1])), await push.connectionId()];
  const topics: string[] = push.topics;
  await push.unsubscribe("a");
  try {
    await push.publish("a", new ArrayBuffer(1));
  } catch (error) {
    if (error instanceof CorecastError) {
      const refused: CorecastRefusal[] = error.refused ?? [];
      console.log(error.code, error.topic, error.message, refused, held, ids, topics);
    }
  }
}

// @ts-expect-error: a topic is a string
push.subscribe(7);
// @ts-expect-error: a payload is not a number
push.publish("a", 7);
// @ts-expect-error: there is no such option
new Corecast("wss://push.example.com/ws", { topic: "news" });
// @ts-expect-error: the state is not the caller's
push.state = "open";
// @ts-expect-error: there is no such member
push.reconnect();
