// One PTY's connection: input, output and its offset, and reconnecting after a loss.
import { ApiError, REPLY_MS, at, forgetToken, isTemporary, request, socket } from "./api.js";
import { Backoff } from "./backoff.js";
import { Keepalive } from "./keepalive.js";

const PROTOCOLS = ["procd.pty.v1", "X-Daytona-Pty-Exit-Control"];
const TAKEN_OVER = 4001;
// Output is acknowledged each time this much has been drawn: less than the server's window.
const ACK_BYTES = 32 << 10;
// A hidden page draws so slowly that a program would wait for it. It disconnects when this much output
// isn't drawn.
const HIDDEN_BYTES = 128 << 10;
// A paste may be longer than the longest message that the server accepts.
const INPUT_BYTES = 32 << 10;

const encoder = new TextEncoder();

/**
 * States, each with a text: connecting, live, waiting (will try again), asleep (until the page is
 * visible again), and those that last until the user acts: replaced, kicked, ended, forbidden, failed.
 *
 * `events`: output(bytes, drawn) draws and then calls `drawn`; reset() clears the screen for output
 * that begins anew; sized(cols, rows): the size that the output is for; state(name, text);
 * presence(message).
 */
export class Attachment {
  #socket = null;
  #offset = null; // of the next output; null: begin with a replay
  #replayLeft = 0;
  #attempt = 0; // identifies the connection that a callback belongs to
  #acked = 0;
  #undrawn = 0; // bytes that aren't drawn yet
  #backoff = new Backoff();
  #keepalive = null;
  #timer = null;
  #created = null;
  #exit = null;
  #size = null;

  /** A `viewer` only watches, whatever its token allows. */
  constructor(id, events, viewer = false) {
    this.id = id;
    this.events = events;
    this.viewer = viewer;
    this.state = "connecting";
    this.online = () => this.state === "waiting" && this.connect();
    addEventListener("online", this.online);
    this.visible = () => !document.hidden && this.state === "asleep" && this.connect();
    document.addEventListener("visibilitychange", this.visible);
  }

  #setState(state, text) {
    this.state = state;
    this.events.state(state, text);
  }

  /** Connect, or connect again. */
  async connect() {
    this.#disconnect();
    const attempt = this.#attempt;
    this.#setState("connecting", "Connecting…");
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
      if (isTemporary(error)) this.#retry();
      else if (error.status === 401) this.#setState("forbidden", "A token is needed to attach.");
      else if (error.status === 403) this.#setState("forbidden", `Not allowed: ${error.message}`);
      else this.#setState("failed", error.message);
    }
  }

  /** Close the connection, and ignore what still comes from it. */
  #disconnect() {
    this.#attempt++;
    clearTimeout(this.#timer);
    this.#keepalive?.stop();
    this.#socket?.close();
    this.#socket = null;
  }

  /** Forget the offset if another terminal has the name now. */
  async #check() {
    try {
      const { createdAt } = await request("GET", at`/process/pty/${this.id}`, undefined, { withinMs: REPLY_MS });
      if (this.#created !== null && this.#created !== createdAt) this.#offset = null;
      this.#created = createdAt;
    } catch (error) {
      // An ended terminal is no longer listed, but can be resumed for a while.
      if (!(error instanceof ApiError && error.status === 404)) throw error;
    }
  }

  #listen(made, attempt) {
    this.#socket = made;
    this.#exit = null;
    this.#keepalive = new Keepalive(
      () => this.#send({ type: "ping" }),
      () => {
        this.#disconnect();
        this.#closed({ code: 1006, reason: "" });
      },
    );
    const ifCurrent = (handler) => (event) => attempt === this.#attempt && handler(event);
    made.onmessage = ifCurrent(({ data }) => {
      this.#keepalive.heard();
      if (typeof data === "string") this.#control(JSON.parse(data));
      else this.#output(new Uint8Array(data), attempt);
    });
    made.onclose = ifCurrent((event) => this.#closed(event));
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
      // The server no longer has the output in between: show everything anew.
      this.#offset = null;
      this.connect();
      return;
    }
    if (this.#offset === null) {
      this.events.reset();
      this.#offset = liveOffset;
      this.#replayLeft = replayBytes;
      this.#check().catch(() => {}); // only for a later comparison
    }
    this.events.sized(cols, rows);
    if (modes) this.events.output(encoder.encode(modes), () => {});
    this.#acked = this.#offset;
    this.#backoff.reset();
    this.#setState("live", "");
    if (this.#size !== null) this.#send(this.#size);
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
      this.#send({ type: "ack", offset: end });
    });
    if (document.hidden && this.#undrawn > HIDDEN_BYTES && this.#replayLeft === 0) this.#sleep();
  }

  #sleep() {
    this.#disconnect();
    this.#setState("asleep", "Paused while the page is hidden.");
  }

  #closed({ code, reason }) {
    this.#disconnect();
    if (this.#replayLeft > 0) {
      this.#offset = null; // half a replay can't be resumed
      this.#replayLeft = 0;
    }
    const exit = this.#exit ?? exitOf(code, reason);
    if (exit?.error !== undefined) {
      if (/not found|terminated/.test(exit.error)) this.#end(exit.error);
      else this.#setState("failed", exit.error);
    } else if (exit !== null) {
      const why = exit.exitReason ? ` (${exit.exitReason})` : "";
      this.#end(`Ended with exit code ${exit.exitCode}${why}.`);
    } else if (code === TAKEN_OVER) {
      this.#setState("replaced", `Somebody else works here now: ${reason}.`);
    } else if (code === 1008 && reason === "slow consumer") {
      this.#offset = null; // the server no longer has what follows
      this.connect();
    } else if (code === 1008) {
      forgetToken();
      this.#setState("kicked", `The server has ended this connection: ${reason || "not allowed"}.`);
    } else if (code === 1000 || code === 1002 || code === 1009 || code === 1011) {
      this.#setState("failed", errorOf(reason) || `The server closed the connection (${code}).`);
    } else {
      this.#retry();
    }
  }

  #end(text) {
    this.#created ??= ""; // from now on another terminal may have the name
    this.#setState("ended", text);
  }

  #retry() {
    const wait = this.#backoff.next();
    const seconds = Math.max(1, Math.round(wait / 1000));
    this.#setState("waiting", `Connection lost. Trying again in ${seconds} s…`);
    this.#timer = setTimeout(() => this.connect(), wait);
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /** Send input; without a connection it is dropped. */
  type(data) {
    if (this.state !== "live" || this.viewer) return;
    const bytes = typeof data === "string" ? encoder.encode(data) : data;
    for (let start = 0; start < bytes.length; start += INPUT_BYTES) {
      this.#socket.send(bytes.subarray(start, start + INPUT_BYTES));
    }
  }

  /** Send the size of the window. */
  sendSize(cols, rows, visible) {
    this.#size = { type: "size", cols, rows, visible };
    if (this.state === "live") this.#send(this.#size);
  }

  /** Disconnect the other clients that type here. */
  takeOver() {
    this.#send({ type: "take-over" });
  }

  /** Change whether this only watches. */
  setViewer(viewer) {
    this.viewer = viewer;
    this.connect();
  }

  /** Disconnect; the terminal runs on. */
  close() {
    this.#disconnect();
    removeEventListener("online", this.online);
    document.removeEventListener("visibilitychange", this.visible);
  }
}

/** The exit that the reason of a Close tells, or null: contract, section 10.5. */
function exitOf(code, reason) {
  try {
    const exit = JSON.parse(reason);
    return typeof exit.exitCode === "number" ? exit : null;
  } catch {
    return null;
  }
}

/** The error that the reason of a Close tells: plain text, or JSON as the SDKs read it. */
function errorOf(reason) {
  try {
    return JSON.parse(reason).error ?? reason;
  } catch {
    return reason;
  }
}
