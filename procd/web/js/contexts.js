// The page of interpreter contexts: cells, their output, results and errors.
import { at, fetched, request, socket } from "./api.js";
import { shownBundle } from "./bundle.js";
import { ask, attempt, confirmed } from "./dialogs.js";
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { Log } from "./log.js";
import { Rows } from "./rows.js";

const DEFAULT = "default";

/** Run code; returns the element that shows its output and result. */
function cell(context, code) {
  const status = h("span", { role: "status" }, "running");
  const results = h("div", {});
  const element = h("article", {}, h("pre", {}, h("code", {}, code)), status, results);
  let log = null;
  const finish = (text, kind) => {
    if (status.textContent !== "running") return;
    status.className = kind;
    status.textContent = text;
  };
  const show = (message) => {
    if (message.type === "stdout" || message.type === "stderr") {
      if (log === null) {
        log = new Log("Output");
        results.append(log.element);
      }
      log.add(message.type, message.text);
      return;
    }
    log = null;
    if (message.type === "result") results.append(shownBundle(message.data));
    else if (message.type === "error") {
      const text = message.traceback || `${message.name}: ${message.value}`;
      results.append(h("pre", { class: "error", tabindex: 0 }, text));
      finish(message.name, "bad");
    } else if (message.type === "control") finish(message.text === "completed" ? "done" : message.text, "good");
  };
  attempt(async () => {
    const made = await socket("/process/interpreter/execute");
    made.onopen = () => made.send(JSON.stringify({ code, contextId: context, display: true }));
    made.onmessage = ({ data }) => show(JSON.parse(data));
    made.onclose = ({ code: number, reason }) =>
      finish(number === 4008 ? "timed out" : reason || `closed (${number})`, "bad");
  });
  return element;
}

/** The page, made once. */
export function contextsPage() {
  let current = DEFAULT;
  const list = h("ul", { "aria-label": "Contexts" });
  const rows = new Rows(list, {
    show: ({ id }) => open(id),
    acts: [
      ["stop", "Interrupt", (context) => post(context, "/interrupt")],
      ["again", "Restart", (context) => post(context, "/restart")],
      ["cross", "End", end],
    ],
    describe,
  });
  const cells = new Map(); // by context: the cells that were run here
  const output = h("div", { role: "region", "aria-label": "Cells" });
  const input = h("textarea", {
    class: "wide", rows: 4, "aria-label": "Python code", placeholder: "Python: Ctrl+Enter runs it", spellcheck: "false",
    onkeydown: (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && run(event),
  });
  const form = h("form", { onsubmit: run }, input, h("button", { class: "main" }, "Run"));

  async function refresh() {
    const reply = await attempt(() => request("GET", "/process/interpreter/context"));
    if (reply === null) return;
    const all = [{ id: DEFAULT, cwd: "the default one" }, ...reply.contexts];
    rows.draw(all.map((context) => [context.id, context]));
  }

  function describe({ id, cwd }) {
    return { id, name: id, facts: cwd, shown: id === current, lacks: id === DEFAULT ? ["End"] : [] };
  }

  function post({ id }, action) {
    return attempt(() => fetched("POST", at`/process/interpreter/context/${id}` + action));
  }

  function open(id) {
    current = id;
    output.replaceChildren(...(cells.get(id) ?? []));
    refresh();
    input.focus();
  }

  function run(event) {
    event.preventDefault();
    if (!input.value.trim()) return;
    const element = cell(current, input.value);
    cells.set(current, [element, ...(cells.get(current) ?? [])]);
    output.prepend(element);
    input.select();
  }

  async function create() {
    const body = await ask("New context", [["cwd", "Directory (empty: the usual one)"]], { action: "Begin" });
    if (body === null) return;
    const made = await attempt(() => request("POST", "/process/interpreter/context", body));
    if (made !== null) open(made.id);
  }

  async function end({ id }) {
    if (!(await confirmed("End this context?", "What is in it is lost.", "End it"))) return;
    await attempt(() => fetched("DELETE", at`/process/interpreter/context/${id}`));
    open(id === current ? DEFAULT : current);
  }

  const element = h(
    "div",
    { class: "page" },
    h(
      "aside",
      { "aria-label": "Contexts" },
      h("div", { class: "bar" }, h("h2", {}, "Contexts"), button(icon("plus"), create, { label: "New context", class: "main" })),
      list,
    ),
    h("div", { class: "content" }, form, output),
  );
  return { element, start: refresh, shown: refresh };
}
