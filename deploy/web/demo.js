import { Corecast } from "/corecast.js";

const MESSAGES_SHOWN = 200;
const byId = (id) => document.getElementById(id);
const push = new Corecast(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, {
  topics: new URLSearchParams(location.search).getAll("topic"),
});

function element(name, text, className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

function show(topic, text, className) {
  const row = element("li", "", className);
  row.append(element("time", new Date().toLocaleTimeString()), element("span", topic, "topic"), element("pre", text));
  const list = byId("messages");
  list.prepend(row);
  while (list.childElementCount > MESSAGES_SHOWN) list.lastElementChild.remove();
}

function showTopics() {
  byId("topics").replaceChildren(...push.topics.map((topic) => {
    const chip = element("li", "");
    const end = element("button", "×");
    end.setAttribute("aria-label", `Unsubscribe from ${topic}`);
    end.onclick = () => {
      push.unsubscribe(topic);
      showTopics();
    };
    chip.append(element("span", topic), end);
    return chip;
  }));
}

function answer(text, isBad = false) {
  byId("answer").textContent = text;
  byId("answer").className = isBad ? "bad" : "";
}

push.addEventListener("message", ({ detail: { type, topic, payload } }) => {
  const from = { msg: topic, all: "to everyone", self: "to you" }[type];
  show(from, typeof payload === "string" ? payload : `${payload.length} bytes that are not text`);
});

push.addEventListener("gap", ({ detail: { topic, count, reason } }) => {
  show(topic === "*" ? "several topics" : topic, `${count} missed (${reason})`, "gap");
});

// At once, or after a reconnect.
push.addEventListener("refused", ({ detail: { topic, text } }) => {
  answer(`${topic}: ${text}`, true);
  showTopics();
});

function showStatus({ state, delay = 0, reason = "" }) {
  byId("status").dataset.state = state;
  byId("status").textContent = {
    connecting: "Connecting…",
    open: "Connected",
    waiting: `Lost${reason ? ` (${reason})` : ""}, next try in ${(delay / 1000).toFixed(1)} s`,
    closed: `Closed${reason ? ` (${reason})` : ""}`,
  }[state];
}
push.addEventListener("status", ({ detail }) => showStatus(detail));
showStatus(push);
showTopics();

byId("subscribe").onsubmit = (event) => {
  event.preventDefault();
  const input = event.target.elements.topic;
  // A refusal is an event, too.
  push.subscribe(input.value).catch(() => {});
  if (!byId("publish").elements.topic.value) byId("publish").elements.topic.value = input.value;
  input.value = "";
  showTopics();
};

byId("publish").onsubmit = async (event) => {
  event.preventDefault();
  const { topic, payload } = event.target.elements;
  try {
    answer(`Published as ${await push.publish(topic.value, payload.value)}.`);
    payload.value = "";
  } catch (error) {
    answer(error.message, true);
  }
};
