// Tabs, each with one terminal or several beside or below each other.
import { button, h } from "./dom.js";
import { TerminalView } from "./terminal.js";

export class Panes {
  #tabs = []; // {views, down, tab, panes}
  #current = null;
  #focused = null;
  #titles = new Map();

  /** `events`: create() resolves with the id of a new terminal or null; changed(); left(). */
  constructor(events) {
    this.events = events;
    this.tabs = h("div", { role: "tablist", "aria-label": "Open terminals" });
    this.body = h("div", { class: "panes" });
    this.tools = h(
      "div",
      { class: "end" },
      button("Split", () => this.#split(false), { label: "Split: new terminal beside" }),
      button("Below", () => this.#split(true), { label: "Split: new terminal below" }),
      button("Find", () => this.#focused?.search(), { label: "Search (Ctrl+Shift+F)" }),
      button("×", () => this.#focused && this.close(this.#focused.id), { label: "Close this view" }),
    );
    this.empty = h("p", { class: "empty" }, "No terminal is open. Choose one, or begin a new one.");
    this.element = h(
      "div",
      { class: "work" },
      h("div", { class: "bar" }, this.tabs, this.tools),
      this.body,
      this.empty,
    );
    this.element.addEventListener("focusin", ({ target }) => {
      const section = target.closest(".view");
      const view = this.#views().find((each) => each.element === section);
      if (view) this.#focused = view;
    });
    this.#show(null);
  }

  #views() {
    return this.#tabs.flatMap((tab) => tab.views);
  }

  /** The ids of what is open. */
  get open() {
    return this.#views().map((view) => view.id);
  }

  /** Show a terminal, in a tab of its own if it isn't open yet. */
  show(id) {
    const found = this.#tabs.find((tab) => tab.views.some((view) => view.id === id));
    if (found) {
      this.#show(found, found.views.find((view) => view.id === id));
      return;
    }
    const tab = { views: [], down: false, panes: null };
    tab.tab = h("button", {
      type: "button",
      role: "tab",
      onclick: () => this.#show(tab),
      onkeydown: (event) => this.#arrow(event, tab),
    });
    this.#tabs.push(tab);
    this.tabs.append(tab.tab);
    this.#add(tab, id);
  }

  #add(tab, id) {
    const view = new TerminalView(id, {
      changed: () => this.events.changed(),
      left: () => tab.tab.focus(),
    });
    tab.views.push(view);
    this.#label(tab);
    this.#show(tab, view);
    view.open();
    view.focus();
  }

  #arrow(event, tab) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const index = this.#tabs.indexOf(tab) + step;
    const next = this.#tabs.at(index % this.#tabs.length);
    this.#show(next, null);
    next.tab.focus();
    event.preventDefault();
  }

  async #split(down) {
    const tab = this.#current;
    const id = await this.events.create();
    if (id === null) return;
    if (tab === null) {
      this.show(id);
      return;
    }
    tab.down = down;
    this.#add(tab, id);
  }

  /** Show a tab and give the keyboard to a view of it: by default the first, with null none. */
  #show(tab, view = tab?.views[0]) {
    this.#current = tab;
    for (const each of this.#tabs) {
      each.tab.setAttribute("aria-selected", String(each === tab));
      each.tab.tabIndex = each === tab ? 0 : -1;
    }
    this.empty.hidden = tab !== null;
    this.body.hidden = tab === null;
    // A view that is only hidden keeps its screen and its connection.
    for (const each of this.#views()) each.element.hidden = !tab?.views.includes(each);
    if (tab !== null) {
      this.body.classList.toggle("down", tab.down);
      for (const each of tab.views) {
        if (each.element.parentNode !== this.body) this.body.append(each.element);
      }
      this.#focused = view ?? tab.views[0];
      if (view?.attachment) view.focus();
    }
    this.events.changed();
  }

  #label(tab) {
    tab.tab.textContent = tab.views.map(({ id }) => this.#titles.get(id) || id).join(" | ");
  }

  /** Take note of the titles that terminals have. */
  name(titles) {
    this.#titles = titles;
    for (const tab of this.#tabs) this.#label(tab);
  }

  /** Close the view of a terminal, which goes on. */
  close(id) {
    const tab = this.#tabs.find((each) => each.views.some((view) => view.id === id));
    if (!tab) return;
    const index = tab.views.findIndex((view) => view.id === id);
    tab.views[index].close();
    tab.views.splice(index, 1);
    if (tab.views.length === 0) {
      this.#tabs.splice(this.#tabs.indexOf(tab), 1);
      tab.tab.remove();
    } else {
      this.#label(tab);
    }
    this.#focused = null;
    this.#show(tab.views.length ? tab : (this.#tabs.at(-1) ?? null));
  }
}
