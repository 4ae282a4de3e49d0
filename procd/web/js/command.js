// One command of a session: its state, and its log, which is followed to its end.
import { REPLY_MS, at, fetched, isTemporary, request, socket } from "./api.js";
import { Backoff } from "./backoff.js";
import { attempt, notify } from "./dialogs.js";
import { button, h } from "./dom.js";
import { Log } from "./log.js";

// Makes the server label the messages of a log: contract, section 2.3.
const LABELLED = "X-Daytona-SDK-Version~0.226.1";
const STREAMS = { 1: "stdout", 2: "stderr" };
const MARKER_BYTES = 3;
// How much of the end of a log is fetched; and how much is received before it is drawn: a browser would
// receive without limit, and draw nothing meanwhile.
const END_BYTES = 1 << 20;
const UNDRAWN_BYTES = 2 << 20;

/** The state of a command: queued, running, good or bad. */
export function stateOf({ exitCode, startedAt }) {
  if (exitCode !== undefined) return exitCode === 0 ? "good" : "bad";
  return startedAt === undefined ? "queued" : "running";
}

export class CommandView {
  #state = null;
  #connection = null;
  #offset = 0; // of the next output
  #followed = false;
  #undrawnBytes = 0;
  #waits = false; // until those are drawn
  #backoff = new Backoff();
  #timer = null;

  constructor(session, { id, command }) {
    this.path = at`/process/session/${session}/command/${id}`;
    this.text = h("span", { role: "status" });
    this.acts = h(
      "span",
      { class: "acts", hidden: true },
      button("Interrupt", () => this.#do("/signal", { signal: "SIGINT" })),
      button("End", () => this.#do("/terminate", {})),
    );
    this.log = new Log(`Output of ${command}`, () => this.#drawn());
    this.element = h(
      "article",
      {},
      h("div", { class: "head" }, h("code", {}, command), this.text, this.acts),
      this.log.element,
    );
  }

  #do(action, body) {
    return attempt(() => fetched("POST", this.path + action, body));
  }

  /** Show the state, as the server describes it; follow the log of a command that has begun. */
  show(described) {
    const state = stateOf(described);
    if (state === this.#state) return;
    this.#state = state;
    const over = described.exitCode !== undefined;
    this.text.textContent = over ? `exit code ${described.exitCode}` : state;
    this.text.className = state;
    this.acts.hidden = state !== "running";
    this.log.element.hidden = state === "queued";
    if (state === "queued" || this.#followed) return;
    this.#followed = true;
    this.#follow(described);
  }

  /** Follow the log from the offset on, or from nearer to the end if that is far away. */
  async #follow(described = null) {
    let connection;
    try {
      described ??= await request("GET", this.path, undefined, { withinMs: REPLY_MS });
      const first = described.outputBytes - END_BYTES;
      if (first > this.#offset) {
        this.#offset = first;
        this.log.skip();
      }
      const params = { follow: "true", offset: this.#offset };
      connection = await socket(`${this.path}/logs`, { params, protocols: [LABELLED] });
    } catch (error) {
      if (isTemporary(error)) this.#retry();
      else notify(error.message);
      return;
    }
    if (!this.#followed) {
      connection.close(); // the view was closed meanwhile
      return;
    }
    this.#connection = connection;
    connection.onmessage = ({ data }) => {
      if (typeof data === "string") {
        this.#offset = JSON.parse(data).firstAvailableOffset; // earlier output is gone
        this.log.skip();
        return;
      }
      const bytes = new Uint8Array(data);
      const payload = bytes.subarray(MARKER_BYTES);
      this.#offset += payload.length;
      this.#backoff.reset();
      this.log.addBytes(STREAMS[bytes[0]] ?? "stdout", payload);
      this.#undrawnBytes += payload.length;
      if (this.#undrawnBytes < UNDRAWN_BYTES) return;
      this.#stop();
      this.#waits = true;
    };
    connection.onclose = ({ code, reason }) => {
      this.#connection = null;
      if (code === 1008 || code === 1011) notify(reason);
      else if (code !== 1000) this.#retry(); // 1000: that was all
    };
  }

  #retry() {
    if (this.#followed) this.#timer = setTimeout(() => this.#follow(), this.#backoff.next());
  }

  #drawn() {
    this.#undrawnBytes = 0;
    if (!this.#waits) return;
    this.#waits = false;
    this.#follow();
  }

  /** Follow the log on a new connection, if it is still followed. */
  resume() {
    if (this.#connection === null) return;
    this.#stop();
    this.#follow();
  }

  #stop() {
    clearTimeout(this.#timer);
    if (this.#connection === null) return;
    this.#connection.onmessage = this.#connection.onclose = null;
    this.#connection.close();
    this.#connection = null;
  }

  close() {
    this.#followed = false;
    this.#waits = false;
    this.#stop();
  }
}
