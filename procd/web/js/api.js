// Requests to the server's API, and WebSockets, which are opened with a one-time ticket.
import { ask } from "./dialogs.js";

// From …/terminal/static/js/ to the root of the API, which may be below a prefix.
const ROOT = new URL("../../../", import.meta.url);
// For requests that the server answers at once.
export const REPLY_MS = 10000;

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Statuses of a gateway without its server, and of a server that has too much to do.
const TEMPORARY = new Set([429, 502, 503, 504]);

/** Whether a request that failed with this error may succeed later. */
export function isTemporary(error) {
  return !(error instanceof ApiError) || TEMPORARY.has(error.status);
}

// Only kept in memory.
let token = null;
let asking = null;
// Whether the server needs tokens: known from requests, because a refused WebSocket doesn't tell.
let needsToken = false;
let greeting = null;
let greeted = false;
const waiting = []; // called once there is a token again

/** Ask the user for a token, once for all requests that need one. */
function askForToken() {
  const text = token === null ? "This server asks for a token." : "That token is not valid.";
  token = null;
  greeting = null; // the next greeting asks again
  asking ??= ask("Token", [["token", "Token", { type: "password", required: true }]], { text, action: "Enter" })
    .then((answer) => {
      if (answer === null) throw new ApiError(401, "no token was given");
      token = answer.token.trim();
      for (const resume of waiting.splice(0)) resume();
    })
    .finally(() => {
      asking = null;
    });
  return asking;
}

/** Resolves when the user has given a token, whichever request asked for it. */
export function tokenGiven() {
  return new Promise((resolve) => waiting.push(resolve));
}

/** Forget the token, which is no longer valid. */
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
 * Send a request; returns a reply with a status of 2xx. Throws an ApiError for another status, and
 * another error without a reply.
 * `options`: accept, a media type; signal and withinMs, which end the request.
 */
export async function fetched(method, path, body, options = {}) {
  for (;;) {
    if (asking !== null) await asking;
    const used = token;
    const reply = await send(method, path, body, options);
    if (reply.ok) return reply;
    if (reply.status === 401) {
      needsToken = true;
      if (used === token) await askForToken();
      continue;
    }
    let message = `A gateway answers for the server: ${reply.status}.`;
    try {
      message = (await reply.json()).message ?? message;
    } catch {
      // It is a gateway's page.
    }
    throw new ApiError(reply.status, message);
  }
}

/** Send a request; returns the JSON of its reply. */
export async function request(method, path, body, options) {
  return (await fetched(method, path, body, options)).json();
}

/** A template tag for a path of the API: encodes the values. */
export function at(strings, ...values) {
  return String.raw({ raw: strings }, ...values.map(encodeURIComponent));
}

/** Find out, once, whether the server needs tokens. */
export function greet() {
  greeting ??= request("GET", "/version").then(
    () => {
      greeted = true;
    },
    (error) => {
      greeting = null;
      throw error;
    },
  );
  return greeting;
}

/** Make a WebSocket for `path`, which isn't open yet. */
export async function socket(path, { params = {}, protocols = [] } = {}) {
  const url = new URL(path.slice(1), ROOT);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  if (!greeted) await greet();
  if (needsToken) {
    const { ticket } = await request("POST", "/tickets", { route: path }, { withinMs: REPLY_MS });
    url.searchParams.set("ticket", ticket);
  }
  const made = new WebSocket(url, protocols);
  made.binaryType = "arraybuffer";
  return made;
}
