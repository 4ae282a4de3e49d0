// The page of recordings: list, play, download, delete.
import { at, fetched, request } from "./api.js";
import { parseCast } from "./cast.js";
import { attempt, confirmed } from "./dialogs.js";
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { Player } from "./player.js";
import { Rows } from "./rows.js";

function bytes(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1 << 20) return `${(count / 1024).toFixed(0)} KiB`;
  return `${(count / (1 << 20)).toFixed(1)} MiB`;
}

async function content(name) {
  return (await fetched("GET", at`/recordings/${name}`, undefined, { accept: "application/x-asciicast" })).blob();
}

async function download(name) {
  const address = URL.createObjectURL(await content(name));
  h("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}

/** The page, made once. */
export function recordingsPage() {
  let player = null;
  let current = null;
  const list = h("ul", { "aria-label": "Recordings" });
  const rows = new Rows(list, {
    show: ({ name }) => attempt(() => play(name)),
    acts: [
      ["download", "Download", ({ name }) => attempt(() => download(name))],
      ["cross", "Delete", (recording) => attempt(() => remove(recording))],
    ],
    describe,
  });
  const hint = h("p", { class: "empty" }, "Choose a recording. Terminals are recorded if they were begun so.");
  const stage = h("div", { class: "work" }, hint);

  async function refresh() {
    const reply = await attempt(() => request("GET", "/recordings"));
    if (reply !== null) rows.draw(reply.recordings.reverse().map((each) => [each.name, each]));
  }

  function describe({ name, ptyId, startedAt, sizeBytes, active }) {
    const when = new Date(startedAt).toLocaleString();
    return {
      id: name,
      name: ptyId,
      full: `${ptyId}, ${when}`,
      facts: `${when} · ${bytes(sizeBytes)}${active ? " · recording" : ""}`,
      shown: name === current,
      lacks: active ? ["Delete"] : [],
    };
  }

  function close() {
    player?.close();
    player = null;
    current = null;
    hint.hidden = false;
  }

  async function play(name) {
    const cast = parseCast(await (await content(name)).text());
    close();
    current = name;
    hint.hidden = true;
    player = new Player(cast);
    stage.append(player.element);
    player.open();
    await refresh();
  }

  async function remove({ name, ptyId }) {
    if (!(await confirmed(`Delete the recording of ${ptyId}?`, "It can't be had back.", "Delete it"))) return;
    await fetched("DELETE", at`/recordings/${name}`);
    if (name === current) close();
    await refresh();
  }

  const element = h(
    "div",
    { class: "page" },
    h(
      "aside",
      { "aria-label": "Recordings" },
      h("div", { class: "bar" }, h("h2", {}, "Recordings"), button(icon("again"), refresh, { label: "Look again" })),
      list,
    ),
    stage,
  );
  return { element, start: refresh, shown: refresh };
}
