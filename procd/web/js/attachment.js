// One PTY's connection: bytes both ways, the place in the output, and coming back after a loss.
import { ApiError, REPLY_MS, at, forgetToken, passes, request, socket } from "./api.js";
import { Backoff } from "./backoff.js";
import { Pulse } from "./pulse.js";

const PROTOCOLS = ["procd.pty.v1", "X-Daytona-Pty-Exit-Control"];
const TAKEN_OVER = 4001;
// The server sends so much ahead of an ack that one for each of these keeps it going.
const ACK_BYTES = 32 << 10;
// A hidden page draws so slowly that a program would wait for it; behind by this, it rather leaves.
const HIDDEN_BYTES = 128 << 10;
// What is pasted may be longer than the server takes in one message.
const PIECE_BYTES = 32 << 10;

const encoder = new TextEncoder();

/**
 * States, each with a text: connecting, live, waiting (will try again), asleep (until the page is
 * seen again), and those that stay until the person does something: replaced, kicked, ended,
 * forbidden, failed.
 *
 * `events`: output(bytes, drawn) draws and then calls `drawn`; reset() clears the screen for output
 * that begins anew; sized(cols, rows) says which size the output is for; state(name, text);
 * presence(message).
 */
export class Attachment {
  #socket = null;
  #offset = null; // where the output goes on; null: from what the server replays
  #replayLeft = 0;
  #attempt = 0; // callbacks of an earlier connection are not acknowledged on a later one
  #acked = 0;
  #undrawn = 0; // bytes that the screen still has to take
  #backoff = new Backoff();
  #pulse = null;
  #timer = null;
  #created = null;
  #exit = null;
  #size = null;

  /** As a `viewer` it only looks on, whatever its token allows. */
  constructor(id, events, viewer = false) {
    this.id = id;
    this.events = events;
    this.viewer = viewer;
    this.state = "connecting";
    this.online = () => this.state === "waiting" && this.connect();
    addEventListener("online", this.online);
    this.seen = () => !document.hidden && this.state === "asleep" && this.connect();
    document.addEventListener("visibilitychange", this.seen);
  }

  #become(state, text) {
    this.state = state;
    this.events.state(state, text);
  }

  /** Attach, or attach again. */
  async connect() {
    this.#leave();
    const attempt = this.#attempt;
    this.#become("connecting", "Connecting…");
    try {
      if (this.#offset !== null) {
        await this.#check();
        if (attempt !== this.#attempt) return;
      }
      const params = {};
      if (this.#offset !== null) params.offset = this.#offset;
      if (this.viewer) params.viewer = true;
      const made = await socket(at`/process/pty/${this.id}/connect`, { params, protocols: PROTOCOLS });
      if (attempt !== this.#attempt) {
        made.close();
        return;
      }
      this.#listen(made, attempt);
    } catch (error) {
      if (attempt !== this.#attempt) return;
      if (passes(error)) this.#retry();
      else if (error.status === 401) this.#become("forbidden", "A token is needed to attach.");
      else if (error.status === 403) this.#become("forbidden", `Not allowed: ${error.message}`);
      else this.#become("failed", error.message);
    }
  }

  /** Let go of the connection; what comes of it now is no longer heard. */
  #leave() {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#pulse?.stop();
    this.#socket?.close();
    this.#socket = null;
  }

  /** Whether it is still the same terminal, and not another one of the same name. */
  async #check() {
    try {
      const { createdAt } = await request("GET", at`/process/pty/${this.id}`, undefined, { withinMs: REPLY_MS });
      if (this.#created !== null && this.#created !== createdAt) this.#offset = null;
      this.#created = createdAt;
    } catch (error) {
      // One that has ended isn't shown any more, but can be resumed for a while.
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    }
  }

  #listen(made, attempt) {
    this.#socket = made;
    this.#exit = null;
    this.#pulse = new Pulse(
      () => this.#say({ type: "ping" }),
      () => {
        this.#leave();
        this.#closed({ code: 1006, reason: "" });
      },
    );
    const mine = (handler) => (event) => attempt === this.#attempt && handler(event);
    made.onmessage = mine(({ data }) => {
      this.#pulse.heard();
      if (typeof data === "string") this.#control(JSON.parse(data));
      else this.#output(new Uint8Array(data), attempt);
    });
    made.onclose = mine((event) => this.#closed(event));
  }

  #control(message) {
    switch (message.status) {
      case "connected":
        this.#connected(message);
        break;
      case "presence":
        this.events.presence(message);
        break;
      case "exited":
        this.#exit = message;
        break;
      case "error":
        this.#exit = { error: message.error };
        break;
    }
  }

  #connected({ offset, replayBytes = 0, liveOffset, modes = "", cols, rows }) {
    if (this.#offset !== null && this.#offset !== offset) {
      // What lies between is no longer kept: better the screen of now than half of it.
      this.#offset = null;
      this.connect();
      return;
    }
    if (this.#offset === null) {
      this.events.reset();
      this.#offset = liveOffset;
      this.#replayLeft = replayBytes;
      this.#check().catch(() => {}); // only to compare with later
    }
    this.events.sized(cols, rows);
    if (modes) this.events.output(encoder.encode(modes), () => {});
    this.#acked = this.#offset;
    this.#backoff.reset();
    this.#become("live", "");
    if (this.#size !== null) this.#say(this.#size);
  }

  #output(bytes, attempt) {
    if (this.#replayLeft > 0) this.#replayLeft -= bytes.length;
    else this.#offset += bytes.length;
    const end = this.#offset;
    this.#undrawn += bytes.length;
    this.events.output(bytes, () => {
      this.#undrawn -= bytes.length;
      if (attempt !== this.#attempt || end - this.#acked < ACK_BYTES) return;
      this.#acked = end;
      this.#say({ type: "ack", offset: end });
    });
    if (document.hidden && this.#undrawn > HIDDEN_BYTES && this.#replayLeft === 0) this.#sleep();
  }

  #sleep() {
    this.#leave();
    this.#become("asleep", "Paused while the page is hidden.");
  }

  #closed({ code, reason }) {
    this.#leave();
    if (this.#replayLeft > 0) {
      this.#offset = null; // half a replay is no place to go on from
      this.#replayLeft = 0;
    }
    const exit = this.#exit ?? exitOf(code, reason);
    if (exit?.error !== undefined) {
      if (/not found|terminated/.test(exit.error)) this.#end(exit.error);
      else this.#become("failed", exit.error);
    } else if (exit !== null) {
      const why = exit.exitReason ? ` (${exit.exitReason})` : "";
      this.#end(`Ended with exit code ${exit.exitCode}${why}.`);
    } else if (code === TAKEN_OVER) {
      this.#become("replaced", `Somebody else works here now: ${reason}.`);
    } else if (code === 1008 && reason === "slow consumer") {
      this.#offset = null; // too far behind for what is kept
      this.connect();
    } else if (code === 1008) {
      forgetToken();
      this.#become("kicked", `The server has ended this connection: ${reason || "not allowed"}.`);
    } else if (code === 1000 || code === 1002 || code === 1009 || code === 1011) {
      this.#become("failed", errorOf(reason) || `The server closed the connection (${code}).`);
    } else {
      this.#retry();
    }
  }

  #end(text) {
    this.#created ??= ""; // what is found under this name from now on is another
    this.#become("ended", text);
  }

  #retry() {
    const wait = this.#backoff.next();
    const seconds = Math.max(1, Math.round(wait / 1000));
    this.#become("waiting", `Connection lost. Trying again in ${seconds} s…`);
    this.#timer = setTimeout(() => this.connect(), wait);
  }

  #say(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Type; what is typed while nobody is connected is dropped, not kept for a surprise. */
  type(data) {
    if (this.state !== "live" || this.viewer) return;
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    for (let start = 0; start < bytes.length; start += PIECE_BYTES) {
      this.#socket.send(bytes.subarray(start, start + PIECE_BYTES));
    }
  }

  /** Tell the size of the window. */
  tellSize(cols, rows, visible) {
    this.#size = { type: "size", cols, rows, visible };
    if (this.state === "live") this.#say(this.#size);
  }

  /** Send away the others that type here. */
  takeOver() {
    this.#say({ type: "take-over" });
  }

  /** Only look on, or no longer. */
  look(viewer) {
    this.viewer = viewer;
    this.connect();
  }

  /** Leave; the terminal goes on. */
  close() {
    this.#leave();
    removeEventListener("online", this.online);
    document.removeEventListener("visibilitychange", this.seen);
  }
}

/** What a close frame says of the exit: contract, section 10.5. */
function exitOf(code, reason) {
  try {
    const exit = JSON.parse(reason);
    return typeof exit.exitCode === "number" ? exit : null;
  } catch {
    return null;
  }
}

/** What is wrong, by the reason of a Close: a text, or JSON as the SDKs read it. */
function errorOf(reason) {
  try {
    return JSON.parse(reason).error ?? reason;
  } catch {
    return reason;
  }
}
