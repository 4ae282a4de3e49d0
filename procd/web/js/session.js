// One session: its commands and their states. A session runs one command at a time, so one request waits
// at a time: a browser has few connections for requests.
import { at, isTemporary, request } from "./api.js";
import { Backoff } from "./backoff.js";
import { CommandView, stateOf } from "./command.js";
import { attempt, notify } from "./dialogs.js";
import { button, h } from "./dom.js";

// How long one request waits for the end of a command; and how long until the server counts as lost.
const WAIT_S = 25;
const ANSWER_MS = (WAIT_S + 10) * 1000;
const MORE = 20;

export class SessionView {
  #closing = new AbortController();
  #commands = []; // as the server describes them, oldest first
  #views = new Map(); // by id, of the newest
  #most = MORE; // how many are shown
  #ended = false; // its shell has
  #watching = false;
  #stale = false; // a command has begun since the last request

  /**
   * `events`: changed() when a command has begun or the shell has ended; gone() when the session is
   * no longer there.
   */
  constructor(id, events) {
    this.id = id;
    this.events = events;
    this.input = h("input", {
      class: "wide", "aria-label": "Command", placeholder: "Command", autocomplete: "off", spellcheck: "false", required: true,
    });
    this.trouble = h("p", { class: "note trouble", role: "status", hidden: true }, "The server can't be reached.");
    this.list = h("div", { "aria-label": "Commands" });
    this.more = button("", () => this.#showMore(), { hidden: true });
    this.element = h(
      "div",
      {},
      h("form", { onsubmit: (event) => this.#run(event) }, this.input, h("button", { class: "main" }, "Run")),
      this.trouble,
      this.list,
      this.more,
    );
  }

  /** Begin; the element has to be in the page. */
  open() {
    this.input.focus();
    this.#watch();
  }

  get #path() {
    return at`/process/session/${this.id}`;
  }

  /** Keep the view current as long as a command runs. */
  async #watch() {
    if (this.#watching) return;
    this.#watching = true;
    const backoff = new Backoff();
    const { signal } = this.#closing;
    const options = { signal, withinMs: ANSWER_MS };
    while (!signal.aborted) {
      try {
        this.#stale = false;
        this.#show(await request("GET", this.#path, undefined, options));
        backoff.reset();
        this.trouble.hidden = true;
        const running = this.#commands.find((command) => stateOf(command) === "running");
        if (running !== undefined) {
          const path = at`/process/session/${this.id}/command/${running.id}`;
          await request("GET", `${path}?wait=${WAIT_S}`, undefined, options);
        } else if (!this.#stale) {
          break;
        }
      } catch (error) {
        if (signal.aborted) break;
        if (!isTemporary(error)) {
          if (error.status === 404) this.events.gone();
          else notify(error.message);
          break;
        }
        this.trouble.hidden = false;
        await new Promise((resolve) => setTimeout(resolve, backoff.next()));
        for (const view of this.#views.values()) view.resume();
      }
    }
    this.#watching = false;
  }

  #show({ commands, ended = false }) {
    if (commands.length !== this.#commands.length || ended !== this.#ended) this.events.changed();
    this.#commands = commands;
    this.#ended = ended;
    this.#draw();
  }

  /** Draw the newest commands, the newest first. */
  #draw() {
    const first = Math.max(0, this.#commands.length - this.#most);
    let above = null;
    for (const command of this.#commands.slice(first).reverse()) {
      if (!this.#views.has(command.id)) {
        const view = new CommandView(this.id, command);
        this.#views.set(command.id, view);
        if (above === null) this.list.prepend(view.element);
        else above.after(view.element);
      }
      const view = this.#views.get(command.id);
      view.show(command);
      above = view.element;
    }
    this.more.hidden = first === 0;
    this.more.textContent = `Show more: ${first} earlier ${first === 1 ? "command isn't" : "commands aren't"} shown`;
  }

  #showMore() {
    this.#most += MORE;
    this.#draw();
  }

  async #run(event) {
    event.preventDefault();
    const command = this.input.value;
    const body = { command, runAsync: true };
    const reply = await attempt(() => request("POST", `${this.#path}/exec`, body));
    if (reply === null) return;
    this.input.value = "";
    this.#stale = true;
    if (!this.#watching) this.#watch();
    else if (!this.#views.has(reply.cmdId)) {
      this.#show({ commands: [...this.#commands, { id: reply.cmdId, command }], ended: this.#ended });
    }
  }

  /** Close the view; the session runs on. */
  close() {
    this.#closing.abort();
    for (const view of this.#views.values()) view.close();
  }
}
