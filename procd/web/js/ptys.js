// The list at the left: terminals that run, and those that ended lately.
import { at, greet, request } from "./api.js";
import { ask, attempt, confirmed } from "./dialogs.js";
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { Rows } from "./rows.js";
import { followTerminalList } from "./terminal_list.js";

const AGE_EVERY_MS = 30000;
const ACTS = ["View only", "Rename", "End"]; // not for a terminal that has ended

/** How long ago a time was, in words. */
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

/** Ask for the settings of a new terminal, and create it; resolves with its id and mode, or null. */
export async function newPty() {
  const wanted = await ask(
    "New terminal",
    [
      ["id", "Name", { value: freshName(), required: true }],
      ["cwd", "Directory (empty: the usual one)"],
      ["envs", "Environment, one NAME=value a line", { rows: 3 }],
      ["cols", "Columns (empty: fits the window)", { type: "number", min: 1, max: 1000 }],
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
    const [variable, ...value] = line.split("=");
    body.envs[variable.trim()] = value.join("=");
  }
  return make(body);
}

/** Create a terminal with the defaults; resolves with its id and mode, or null. */
function quickPty() {
  return make({ id: freshName() });
}

function freshName() {
  return `web-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
}

async function make(body) {
  const made = await attempt(() => request("POST", "/process/pty", body));
  return made && { id: body.id, mode: body.cols || body.rows ? "keep" : "" };
}

export class PtyList {
  #ptys = [];
  #trouble = "…"; // why the list isn't current
  #locked = false;

  /** `events`: show({id, mode}), named(map of titles). */
  constructor(events, panes) {
    this.events = events;
    this.panes = panes;
    const list = h("ul", { "aria-label": "Terminals" });
    this.rows = new Rows(list, {
      show: ({ id }) => this.events.show({ id }),
      acts: [
        ["eye", "View only", ({ id }) => this.events.show({ id, mode: "view" })],
        ["pencil", "Rename", (pty) => this.#rename(pty)],
        ["cross", "End", (pty) => this.#kill(pty)],
      ],
      describe: (pty) => this.#describe(pty),
    });
    this.text = h("span", {});
    // Asks for a token again, after the dialog was closed.
    this.enter = button("Enter a token", () => greet().catch(() => {}), { class: "main" });
    this.note = h("p", { class: "note", role: "status" }, this.text, this.enter);
    this.element = h(
      "aside",
      { "aria-label": "Terminals" },
      h(
        "div",
        { class: "bar" },
        h("h2", {}, "Terminals"),
        button(icon("plus"), () => this.#add(quickPty), { label: "New terminal", class: "main" }),
        button(icon("more"), () => this.#add(newPty), {
          label: "New terminal with directory, environment, size",
        }),
      ),
      this.note,
      list,
    );
    this.draw();
  }

  /** Keep the list current. */
  follow() {
    followTerminalList({
      listed: (ptys) => {
        this.#ptys = ptys;
        this.events.named(new Map(ptys.map((pty) => [pty.id, pty.title])));
        this.#showTrouble("");
      },
      lost: () => this.#showTrouble("The server can't be reached."),
      locked: () => this.#showTrouble("A token is needed.", true),
    });
    setInterval(() => this.draw(), AGE_EVERY_MS);
  }

  async #add(maker) {
    const made = await maker();
    if (made !== null) this.events.show(made);
  }

  #showTrouble(trouble, locked = false) {
    this.#trouble = trouble;
    this.#locked = locked;
    this.draw();
  }

  /** Draw the list, with what is wrong above it. */
  draw() {
    const text = this.#trouble || (this.#ptys.length ? "" : "None yet.");
    this.note.hidden = !text;
    this.note.classList.toggle("trouble", this.#trouble !== "");
    if (this.text.textContent !== text) this.text.textContent = text;
    this.enter.hidden = !this.#locked;
    const ended = (pty) => Number(pty.exitCode !== null);
    const ptys = this.#ptys.toSorted((one, other) => ended(one) - ended(other));
    // A new terminal may have the name of an ended one that is still listed.
    this.rows.draw(ptys.map((pty) => [`${pty.createdAt} ${pty.id}`, pty]));
  }

  #describe(pty) {
    const ended = pty.exitCode !== null;
    const { open, shown } = this.panes;
    return {
      id: pty.id,
      name: pty.title || pty.id,
      facts: facts(pty),
      open: !ended && open.some(({ id }) => id === pty.id),
      shown: !ended && shown === pty.id,
      over: ended,
      bad: ended && pty.exitCode !== 0,
      lacks: ended ? ACTS : [],
    };
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
