// The page's frame: which page is shown, and the settings.
import { greet } from "./api.js";
import { button, h } from "./dom.js";
import { change, onChange, settings } from "./settings.js";
import { terminalsPage } from "./terminals.js";
import { nextTheme } from "./theme.js";

const PAGES = [
  ["Terminals", async () => terminalsPage()],
  ["Sessions", async () => (await import("./sessions.js")).sessionsPage()],
  ["Contexts", async () => (await import("./contexts.js")).contextsPage()],
  ["Recordings", async () => (await import("./recordings.js")).recordingsPage()],
];

const main = document.getElementById("page");
const shown = new Map();
const tabs = PAGES.map(([name, make]) =>
  h("button", { type: "button", role: "tab", onclick: () => show(name, make) }, name),
);

async function show(name, make) {
  for (const tab of tabs) tab.setAttribute("aria-selected", String(tab.textContent === name));
  const known = shown.get(name);
  if (known === undefined) {
    const page = await make();
    shown.set(name, page);
    main.append(page.element);
    page.start();
  } else {
    known.shown?.();
  }
  for (const [each, page] of shown) page.element.hidden = each !== name;
}

function toggle(key, sign, label) {
  const made = button(sign, () => change({ [key]: !settings()[key] }), { label });
  const draw = () => made.setAttribute("aria-pressed", String(settings()[key]));
  onChange(draw);
  draw();
  return made;
}

document.getElementById("pages").append(...tabs);
document.getElementById("settings").append(
  button("A−", () => change({ fontSize: settings().fontSize - 1 }), { label: "Smaller font" }),
  button("A+", () => change({ fontSize: settings().fontSize + 1 }), { label: "Larger font" }),
  button("◐", nextTheme, { label: "Theme: system, light, dark" }),
  toggle("clipboard", "Clipboard", "Programs may set the clipboard"),
  toggle("screenReader", "Reader", "Screen reader mode"),
);
greet().catch(() => {}); // begin now; who needs it asks again and says what is wrong
show(...PAGES[0]);
