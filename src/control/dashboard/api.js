// Calls to the server. The token lives as long as the browser tab, and goes nowhere but into the Authorization header.

const KEY = 'corecast-token';
let token = sessionStorage.getItem(KEY);
let denied = async () => {};

export const hasToken = () => token !== null;

export function setToken(value) {
  token = value;
  sessionStorage.setItem(KEY, value);
}

/** What to do when the server wants another token; it resolves when there is one. */
export function onDenied(ask) {
  denied = ask;
}

/** An answer that is not a success. */
export class Problem extends Error {
  constructor(status, { title, detail, code }, retryAfter) {
    super(detail || title || `The server answered ${status}.`);
    this.status = status;
    this.title = title ?? `Status ${status}`;
    this.code = code ?? null;
    this.retryAfter = retryAfter;
  }
}

/** Paths are relative to the page, so that it works behind a proxy that adds a prefix. */
export async function send(path, { headers = {}, ...rest } = {}) {
  for (;;) {
    const used = token;
    const authorization = used === null ? {} : { Authorization: `Bearer ${used}` };
    const response = await fetch(new URL(path, document.baseURI), { cache: 'no-store', ...rest, headers: { ...headers, ...authorization } });
    // Refused, but meanwhile there is another token: nothing to ask the user for.
    if (response.status !== 401 || used === token) return response;
  }
}

/** Sends, and reads the JSON answer; asks for a token and tries again where the server wants one. */
export async function call(path, options) {
  for (;;) {
    let response;
    try {
      response = await send(path, options);
    } catch {
      throw new Problem(0, { title: 'Not sent', detail: 'The server can’t be reached.' });
    }
    if (response.status === 401) {
      await denied();
      continue;
    }
    const body = await response.json().catch(() => ({}));
    if (!response.ok) throw new Problem(response.status, body, response.headers.get('Retry-After'));
    return body;
  }
}
