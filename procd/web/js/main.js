// The frame: tabs for the pages, and the settings.
import { greet } from "./api.js";
import { attempt } from "./dialogs.js";
import { button, h, name } from "./dom.js";
import { icon } from "./icons.js";
import { change, onChange, settings } from "./settings.js";
import { choose, tabList, tabOf } from "./tabs.js";
import { nextTheme, theme } from "./theme.js";

// Imported when they are shown: the server is asked before xterm.js is loaded.
const PAGES = [
  ["Terminals", async () => (await import("./terminals.js")).terminalsPage()],
  ["Sessions", async () => (await import("./sessions.js")).sessionsPage()],
  ["Contexts", async () => (await import("./contexts.js")).contextsPage()],
  ["Recordings", async () => (await import("./recordings.js")).recordingsPage()],
];

const pages = new Map(); // by tab
const tabs = tabList("Pages", show, { id: "pages" });
for (const [title, make] of PAGES) {
  const panel = h("div", { class: "panel", hidden: true });
  const tab = tabOf(panel, () => show(tab), title);
  pages.set(tab, { make, panel, made: null });
  tabs.append(tab);
}

async function show(tab) {
  choose(tabs, tab);
  for (const [each, { panel }] of pages) panel.hidden = each !== tab;
  const page = pages.get(tab);
  if (page.made !== null) {
    page.made.then((made) => made?.shown?.());
    return;
  }
  page.made = attempt(page.make);
  const made = await page.made;
  if (made === null) {
    page.made = null; // try again the next time
    return;
  }
  page.panel.append(made.element);
  made.start();
}

function toggle(key, sign, label) {
  const made = button(icon(sign), () => change({ [key]: !settings()[key] }), { label });
  const draw = () => made.setAttribute("aria-pressed", String(settings()[key]));
  onChange(draw);
  draw();
  return made;
}

function themeButton() {
  const made = button("", nextTheme);
  const draw = () => {
    const { text, sign } = theme();
    made.replaceChildren(icon(sign));
    name(made, `Theme: ${text}`);
  };
  onChange(draw);
  draw();
  return made;
}

document.getElementById("page").append(...[...pages.values()].map(({ panel }) => panel));
document.getElementById("settings").before(tabs);
document.getElementById("settings").append(
  button("A−", () => change({ fontSize: settings().fontSize - 1 }), { label: "Smaller font" }),
  button("A+", () => change({ fontSize: settings().fontSize + 1 }), { label: "Larger font" }),
  themeButton(),
  toggle("clipboard", "clipboard", "Programs may set the clipboard"),
  toggle("screenReader", "speaker", "Screen reader mode"),
);
greet().catch(() => {}); // begin early; later callers report the error
import("../vendor/xterm.mjs").catch(() => {}); // load early: it is large
show(tabs.firstElementChild);
