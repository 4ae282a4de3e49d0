// The page of shell sessions: the list, and one session with its commands.
import { at, fetched, request } from "./api.js";
import { ask, attempt, confirmed, notify } from "./dialogs.js";
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { Rows } from "./rows.js";
import { SessionView } from "./session.js";

/** The page, made once. */
export function sessionsPage() {
  let current = null;
  const list = h("ul", { "aria-label": "Sessions" });
  const rows = new Rows(list, {
    show: ({ sessionId }) => open(sessionId),
    acts: [["cross", "End", end]],
    describe,
  });
  const hint = h("p", { class: "empty" }, "Choose a session, or begin a new one.");
  const content = h("div", { class: "content" }, hint);

  async function refresh() {
    const sessions = await attempt(() => request("GET", "/process/session"));
    if (sessions !== null) rows.draw(sessions.map((session) => [session.sessionId, session]));
  }

  function describe({ sessionId, commands, ended }) {
    const facts = commands.length === 1 ? "1 command" : `${commands.length} commands`;
    return {
      id: sessionId,
      name: sessionId,
      facts: ended ? `${facts} · ended` : facts,
      shown: sessionId === current?.id,
    };
  }

  function open(id) {
    current?.close();
    current = id === null ? null : new SessionView(id, { changed: refresh, gone });
    content.replaceChildren(current?.element ?? hint);
    current?.open();
    refresh();
  }

  function gone() {
    notify(`${current.id} has ended.`);
    open(null);
  }

  async function create() {
    const fields = [["sessionId", "Name", { required: true }], ["cwd", "Directory (empty: the usual one)"]];
    const body = await ask("New session", fields, { action: "Begin" });
    if (body === null) return;
    if (await attempt(() => fetched("POST", "/process/session", body))) open(body.sessionId);
  }

  async function end({ sessionId: id }) {
    if (!(await confirmed(`End ${id}?`, "Everything that runs in it is killed.", "End it"))) return;
    if (id === current?.id) open(null);
    await attempt(() => fetched("DELETE", at`/process/session/${id}`));
    refresh();
  }

  const element = h(
    "div",
    { class: "page" },
    h(
      "aside",
      { "aria-label": "Sessions" },
      h(
        "div",
        { class: "bar" },
        h("h2", {}, "Sessions"),
        button(icon("plus"), create, { label: "New session", class: "main" }),
      ),
      list,
    ),
    content,
  );
  return { element, start: refresh, shown: refresh };
}
