// The page of shell sessions: commands, exit codes, followed logs.
import { at, request, fetched, socket } from "./api.js";
import { ask, attempt, confirmed } from "./dialogs.js";
import { button, h } from "./dom.js";
import { Log } from "./log.js";

// Has the log sent with a marker per message: contract, section 2.3.
const LABELLED = "X-Daytona-SDK-Version~0.226.1";
const STREAMS = { 1: "stdout", 2: "stderr" };
const WAIT_S = 60;

/** One command with its log, followed until its end. */
class Command {
  constructor(session, command) {
    this.session = session;
    this.id = command.id;
    this.status = h("span", { role: "status" });
    this.log = new Log(`Output of ${command.command}`);
    this.element = h(
      "article",
      {},
      h("div", {}, h("code", {}, command.command), " ", this.status),
      this.log.element,
    );
    this.#show(command);
    this.#follow();
    if (command.exitCode === undefined) this.#wait();
  }

  get #path() {
    return at`/process/session/${this.session}/command/${this.id}`;
  }

  #show({ exitCode }) {
    const running = exitCode === undefined;
    this.status.className = running ? "" : exitCode === 0 ? "good" : "bad";
    this.status.replaceChildren(running ? "running " : `exit code ${exitCode}`);
    if (!running) return;
    this.status.append(
      button("Interrupt", () => this.#do("/signal", { signal: "SIGINT" })),
      " ",
      button("End", () => this.#do("/terminate", {})),
    );
  }

  #do(action, body) {
    return attempt(() => fetched("POST", this.#path + action, body));
  }

  async #wait() {
    await attempt(async () => {
      for (;;) {
        const command = await request("GET", `${this.#path}?wait=${WAIT_S}`);
        if (command.exitCode === undefined) continue;
        this.#show(command);
        return;
      }
    });
  }

  async #follow() {
    await attempt(async () => {
      const feed = await socket(`${this.#path}/logs`, { params: { follow: "true" }, protocols: [LABELLED] });
      this.feed = feed;
      feed.onmessage = ({ data }) => {
        const bytes = new Uint8Array(data);
        this.log.addBytes(STREAMS[bytes[0]] ?? "stdout", bytes.subarray(3));
      };
    });
  }

  close() {
    this.feed?.close();
  }
}

/** The page, made once. */
export function sessionsPage() {
  let current = null;
  let shown = [];
  const list = h("ul", { "aria-label": "Sessions" });
  const commands = h("div", { "aria-label": "Commands" });
  const input = h("input", {
    class: "wide", "aria-label": "Command", placeholder: "Command", autocomplete: "off", spellcheck: "false", required: true,
  });
  const form = h("form", { hidden: true, onsubmit: run }, input, h("button", { class: "main" }, "Run"));
  const hint = h("p", { class: "empty" }, "Choose a session, or begin a new one.");

  async function refresh() {
    const sessions = await attempt(() => request("GET", "/process/session"));
    if (sessions === null) return;
    list.replaceChildren(...sessions.map(item));
  }

  function item({ sessionId, commands: all }) {
    return h(
      "li",
      { "data-id": sessionId, class: sessionId === current ? "here" : "" },
      button(sessionId, () => open(sessionId), { class: "name" }),
      button("✕", () => end(sessionId), { label: `End ${sessionId}` }),
      h("span", { class: "facts" }, `${all.length} commands`),
    );
  }

  async function open(id) {
    current = id;
    for (const command of shown) command.close();
    shown = [];
    commands.replaceChildren();
    form.hidden = id === null;
    hint.hidden = id !== null;
    await refresh();
    if (id === null) return;
    const session = await attempt(() => request("GET", at`/process/session/${id}`));
    // The newest first, and not all that ever were.
    for (const command of session?.commands.slice(-20) ?? []) add(command);
    input.focus();
  }

  function add(command) {
    const made = new Command(current, command);
    shown.push(made);
    commands.prepend(made.element);
  }

  async function run(event) {
    event.preventDefault();
    const text = input.value;
    const reply = await attempt(() =>
      request("POST", at`/process/session/${current}/exec`, { command: text, runAsync: true }),
    );
    if (reply === null) return;
    input.value = "";
    add({ id: reply.cmdId, command: text });
    refresh();
  }

  async function create() {
    const fields = [["sessionId", "Name", { required: true }], ["cwd", "Directory (empty: the usual one)"]];
    const body = await ask("New session", fields, { action: "Begin" });
    if (body === null) return;
    if (await attempt(() => fetched("POST", "/process/session", body))) open(body.sessionId);
  }

  async function end(id) {
    if (!(await confirmed(`End ${id}?`, "Everything that runs in it is killed.", "End it"))) return;
    await attempt(() => fetched("DELETE", at`/process/session/${id}`));
    if (id === current) open(null);
    else refresh();
  }

  const element = h(
    "div",
    { class: "page" },
    h(
      "aside",
      { "aria-label": "Sessions" },
      h("div", { class: "bar" }, h("h2", {}, "Sessions"), button("+", create, { label: "New session", class: "main" })),
      list,
    ),
    h("div", { class: "content" }, form, hint, commands),
  );
  return { element, start: refresh, shown: refresh };
}
