// Tabs and their panels. Source: ARIA Authoring Practices Guide, "Tabs".
import { h } from "./dom.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const ENDS = { Home: 0, End: -1 };

let made = 0;

/** Make a tab for `panel`, which isn't in a list yet. */
export function tabOf(panel, onclick, text = "") {
  const id = `tab-${++made}`;
  panel.id = `${id}-panel`;
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", id);
  return h("button", { type: "button", role: "tab", id, "aria-controls": panel.id, onclick }, text);
}

/** Select `chosen` of the tabs in `list`; the Tab key reaches it. */
export function choose(list, chosen) {
  for (const tab of list.children) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  // In the next frame, when the browser lays out the page anyway.
  if (chosen) requestAnimationFrame(() => chosen.scrollIntoView({ block: "nearest", inline: "nearest" }));
}

/** Make a list of tabs; the arrow keys, Home and End call `show` with another tab of it. */
export function tabList(label, show, attributes = {}) {
  const onkeydown = (event) => {
    const tabs = [...event.currentTarget.children];
    const step = STEPS[event.key];
    const place = step ? (tabs.indexOf(event.target) + step) % tabs.length : ENDS[event.key];
    if (place === undefined) return;
    event.preventDefault();
    const tab = tabs.at(place);
    show(tab);
    tab.focus();
  };
  return h("div", { role: "tablist", "aria-label": label, onkeydown, ...attributes });
}
