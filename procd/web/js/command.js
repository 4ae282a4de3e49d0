// One command of a session: how it stands, and its log, followed from its start to its end.
import { REPLY_MS, at, fetched, passes, request, socket } from "./api.js";
import { Backoff } from "./backoff.js";
import { attempt, notify } from "./dialogs.js";
import { button, h } from "./dom.js";
import { Log } from "./log.js";

// Has the log sent with a marker per message: contract, section 2.3.
const LABELLED = "X-Daytona-SDK-Version~0.226.1";
const STREAMS = { 1: "stdout", 2: "stderr" };
const MARKER_BYTES = 3;
// Of a log, so much of its end is fetched; and so much is taken in before it is drawn, since a browser
// would take in without limit what it is sent, and do nothing else.
const END_BYTES = 1 << 20;
const AHEAD_BYTES = 2 << 20;

/** How a command stands that the server describes: queued, running, good or bad. */
export function stateOf({ exitCode, startedAt }) {
  if (exitCode !== undefined) return exitCode === 0 ? "good" : "bad";
  return startedAt === undefined ? "queued" : "running";
}

export class CommandView {
  #state = null;
  #feed = null;
  #offset = 0; // where its output goes on
  #followed = false; // to its end, or for now
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

  /** Show how it stands, as the server describes it; what has begun is followed. */
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

  /** Go on where it was, or nearer to the end if that is far away. */
  async #follow(described = null) {
    let feed;
    try {
      described ??= await request("GET", this.path, undefined, { withinMs: REPLY_MS });
      const first = described.outputBytes - END_BYTES;
      if (first > this.#offset) {
        this.#offset = first;
        this.log.skip();
      }
      const params = { follow: "true", offset: this.#offset };
      feed = await socket(`${this.path}/logs`, { params, protocols: [LABELLED] });
    } catch (error) {
      if (passes(error)) this.#again();
      else notify(error.message);
      return;
    }
    if (!this.#followed) {
      feed.close(); // closed meanwhile
      return;
    }
    this.#feed = feed;
    feed.onmessage = ({ data }) => {
      if (typeof data === "string") {
        this.#offset = JSON.parse(data).firstAvailableOffset; // all before it is gone
        this.log.skip();
        return;
      }
      const bytes = new Uint8Array(data);
      const payload = bytes.subarray(MARKER_BYTES);
      this.#offset += payload.length;
      this.#backoff.reset();
      this.log.addBytes(STREAMS[bytes[0]] ?? "stdout", payload);
      this.#undrawnBytes += payload.length;
      if (this.#undrawnBytes < AHEAD_BYTES) return;
      this.#stop();
      this.#waits = true;
    };
    feed.onclose = ({ code, reason }) => {
      this.#feed = null;
      if (code === 1008 || code === 1011) notify(reason);
      else if (code !== 1000) this.#again(); // else that was all
    };
  }

  #again() {
    if (this.#followed) this.#timer = setTimeout(() => this.#follow(), this.#backoff.next());
  }

  #drawn() {
    this.#undrawnBytes = 0;
    if (!this.#waits) return;
    this.#waits = false;
    this.#follow();
  }

  /** Follow it on another connection, if it is still being followed. */
  resume() {
    if (this.#feed === null) return;
    this.#stop();
    this.#follow();
  }

  #stop() {
    clearTimeout(this.#timer);
    if (this.#feed === null) return;
    this.#feed.onmessage = this.#feed.onclose = null;
    this.#feed.close();
    this.#feed = null;
  }

  close() {
    this.#followed = false;
    this.#waits = false;
    this.#stop();
  }
}
