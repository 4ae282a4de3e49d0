// The server's API: requests, and WebSockets that are opened with a one-time ticket.
import { ask } from "./dialogs.js";

// From …/terminal/static/js/ to where the API begins, below whatever prefix.
const ROOT = new URL("../../../", import.meta.url);
// For what the server answers at once, if it can be reached at all.
export const REPLY_MS = 10000;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A gateway's, whose server isn't there, and a server's that has too much to do.
const PASSING = new Set([429, 502, 503, 504]);

/** Whether what has failed so is worth another try by itself. */
export function passes(error) {
  return !(error instanceof ApiError) || PASSING.has(error.status);
}

// In memory only: it goes with the page.
let token = null;
let asking = null;
// Whether the server asks for tokens: a request tells, a WebSocket that is refused doesn't.
let guarded = false;
let told = null;
let greeted = false;
const waiting = []; // those who go on when there is a token again

/** Ask for a token, once for all who wait for one. */
function askForToken() {
  const text = token === null ? "This server asks for a token." : "That token is not valid.";
  token = null;
  told = null; // whoever greets from now on is asked again
  asking ??= ask("Token", [["token", "Token", { type: "password", required: true }]], { text, action: "Enter" })
    .then((answer) => {
      if (answer === null) throw new ApiError(401, "no token was given");
      token = answer.token.trim();
      for (const goOn of waiting.splice(0)) goOn();
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

/** Resolves when the person has given a token, to this or to another question. */
export function tokenGiven() {
  return new Promise((resolve) => waiting.push(resolve));
}

/** Forget the token, which the server no longer takes. */
export function forgetToken() {
  token = null;
}

async function send(method, path, body, { accept = "application/json", signal, withinMs }) {
  const headers = { Accept: accept };
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(new URL(path.slice(1), ROOT), {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal: AbortSignal.any([signal, withinMs && AbortSignal.timeout(withinMs)].filter(Boolean)),
  });
}

/**
 * The reply to a request, which is a 2xx; throws an ApiError, or another error if nobody answers.
 * `options`: accept, a media type; signal and withinMs, which end the request.
 */
export async function fetched(method, path, body, options = {}) {
  for (;;) {
    if (asking !== null) await asking;
    const used = token;
    const reply = await send(method, path, body, options);
    if (reply.ok) return reply;
    if (reply.status === 401) {
      guarded = true;
      if (used === token) await askForToken();
      continue;
    }
    let message = `A gateway answers for the server: ${reply.status}.`;
    try {
      message = (await reply.json()).message ?? message;
    } catch {
      // A gateway's page.
    }
    throw new ApiError(reply.status, message);
  }
}

/** The same as parsed JSON. */
export async function request(method, path, body, options) {
  return (await fetched(method, path, body, options)).json();
}

/** A path of the API with each part encoded. */
export function at(strings, ...values) {
  return String.raw({ raw: strings }, ...values.map(encodeURIComponent));
}

/** Have the server tell once whether it asks for tokens. */
export function greet() {
  told ??= request("GET", "/version").then(
    () => {
      greeted = true;
    },
    (error) => {
      told = null;
      throw error;
    },
  );
  return told;
}

/** A WebSocket on `path`, not yet open. */
export async function socket(path, { params = {}, protocols = [] } = {}) {
  const url = new URL(path.slice(1), ROOT);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  if (!greeted) await greet(); // else it is begun at once, while the page goes on with its screen
  if (guarded) {
    const { ticket } = await request("POST", "/tickets", { route: path }, { withinMs: REPLY_MS });
    url.searchParams.set("ticket", ticket);
  }
  const made = new WebSocket(url, protocols);
  made.binaryType = "arraybuffer";
  return made;
}
