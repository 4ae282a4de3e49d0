// Tabs and their panels. Source: ARIA Authoring Practices Guide, "Tabs".
import { h } from "./dom.js";

const STEPS = { ArrowLeft: -1, ArrowRight: 1 };
const ENDS = { Home: 0, End: -1 };

let made = 0;

/** A tab that belongs to `panel`, and is not in a list yet. */
export function tabOf(panel, onclick, text = "") {
  const id = `tab-${++made}`;
  panel.id = `${id}-panel`;
  panel.setAttribute("role", "tabpanel");
  panel.setAttribute("aria-labelledby", id);
  return h("button", { type: "button", role: "tab", id, "aria-controls": panel.id, onclick }, text);
}

/** Of the tabs in `list`, `chosen` is the one that is shown, and that the Tab key reaches. */
export function choose(list, chosen) {
  for (const tab of list.children) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
  }
  // With the next frame, when the browser lays out the page anyway.
  if (chosen) requestAnimationFrame(() => chosen.scrollIntoView({ block: "nearest", inline: "nearest" }));
}

/** A list of tabs; the arrows, Home and End call `show` with another tab of it. */
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
