// The list at the left: live terminals and those that ended lately.
import { at, request } from "./api.js";
import { ask, attempt, confirmed } from "./dialogs.js";
import { button, h } from "./dom.js";
import { followPtys } from "./feed.js";

const AGE_EVERY_MS = 30000;

/** How long ago something began, in words. */
function age(since) {
  const seconds = Math.max(0, (Date.now() - Date.parse(since)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function facts(pty) {
  if (pty.exitCode !== null) return `ended with exit code ${pty.exitCode}`;
  const clients = pty.clients === 1 ? "1 client" : `${pty.clients} clients`;
  const state = `${pty.active ? "" : " · not started"}${pty.recorded ? " · recorded" : ""}`;
  return `${pty.cols}×${pty.rows} · ${clients} · ${age(pty.createdAt)}${state}`;
}

/** Ask what a new terminal is to be, and make it; resolves with its id or null. */
export async function newPty() {
  const wanted = await ask(
    "New terminal",
    [
      ["id", "Name", { value: freshName(), required: true }],
      ["cwd", "Directory (empty: the usual one)"],
      ["envs", "Environment, one NAME=value a line", { rows: 3 }],
      ["cols", "Columns (empty: as the window)", { type: "number", min: 1, max: 1000 }],
      ["rows", "Rows", { type: "number", min: 1, max: 1000 }],
      ["record", "Record it", { type: "checkbox" }],
    ],
    { action: "Begin" },
  );
  if (wanted === null) return null;
  const body = { id: wanted.id, envs: {}, record: wanted.record };
  if (wanted.cwd) body.cwd = wanted.cwd;
  if (wanted.cols) body.cols = Number(wanted.cols);
  if (wanted.rows) body.rows = Number(wanted.rows);
  for (const line of wanted.envs.split("\n").filter((each) => each.trim())) {
    const [name, ...value] = line.split("=");
    body.envs[name.trim()] = value.join("=");
  }
  return make(body);
}

/** Make a terminal with all the defaults; resolves with its id or null. */
export function quickPty() {
  return make({ id: freshName() });
}

function freshName() {
  return `web-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
}

async function make(body) {
  const made = await attempt(() => request("POST", "/process/pty", body));
  return made && body.id;
}

export class PtyList {
  #ptys = [];

  /** `events`: show(id), closed(id), named(map of titles). */
  constructor(events, panes) {
    this.events = events;
    this.panes = panes;
    this.list = h("ul", { "aria-label": "Terminals" });
    this.note = h("p", { class: "empty", role: "status" }, "…");
    this.element = h(
      "aside",
      { "aria-label": "Terminals" },
      h(
        "div",
        { class: "bar" },
        h("h2", {}, "Terminals"),
        h(
          "span",
          {},
          button("+", () => this.#add(quickPty), { label: "New terminal", class: "main" }),
          " ",
          button("…", () => this.#add(newPty), { label: "New terminal with directory, environment, size" }),
        ),
      ),
      this.list,
      this.note,
    );
    followPtys({
      listed: (ptys) => {
        this.#ptys = ptys;
        this.events.named(new Map(ptys.map((pty) => [pty.id, pty.title])));
        this.draw();
      },
      lost: () => {
        this.note.hidden = false;
        this.note.textContent = "The server can't be reached.";
      },
    });
    setInterval(() => this.draw(), AGE_EVERY_MS);
  }

  async #add(maker) {
    const id = await maker();
    if (id !== null) this.events.show(id);
  }

  /** Draw the list; what has the keyboard keeps it. */
  draw() {
    const focused = this.list.contains(document.activeElement)
      ? document.activeElement.dataset.key
      : null;
    this.list.replaceChildren(...this.#ptys.map((pty) => this.#item(pty)));
    this.note.hidden = this.#ptys.length > 0;
    this.note.textContent = "None yet.";
    if (focused) this.list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #item(pty) {
    const { id } = pty;
    const name = pty.title || id;
    const ended = pty.exitCode !== null;
    const act = (sign, label, act_) =>
      button(sign, () => act_.call(this, pty), { label: `${label} ${name}`, "data-key": `${label} ${id}` });
    return h(
      "li",
      { "data-id": id, class: this.panes.open.includes(id) ? "here" : "" },
      button(name, () => this.events.show(id), { class: "name", "data-key": `show ${id}`, disabled: ended }),
      ended ? null : act("✎", "Rename", this.#rename),
      ended ? null : act("✕", "End", this.#kill),
      h("span", { class: ended && pty.exitCode !== 0 ? "facts bad" : "facts" }, facts(pty)),
    );
  }

  async #rename(pty) {
    const answer = await ask("Rename", [["title", "Title", { value: pty.title, maxlength: 100 }]]);
    if (answer !== null) this.#do("PATCH", at`/terminal/ptys/${pty.id}`, answer);
  }

  async #kill(pty) {
    const text = "Everything that runs in it is killed.";
    if (await confirmed(`End ${pty.title || pty.id}?`, text, "End it")) {
      this.#do("DELETE", at`/process/pty/${pty.id}`);
    }
  }

  #do(method, path, body) {
    return attempt(() => request(method, path, body));
  }
}
