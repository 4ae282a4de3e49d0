// Tabs, each with one or several terminals beside or below each other.
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { choose, tabList, tabOf } from "./tabs.js";
import { TerminalView } from "./terminal.js";

export class Panes {
  #tabs = []; // {views, tab, panel}
  #current = null;
  #focused = null;
  #titles = new Map();

  /** `events`: create() resolves with {id, mode} of a new terminal or null; changed(). */
  constructor(events) {
    this.events = events;
    this.tabs = tabList("Open terminals", (tab) => this.#show(this.#tabs.find((each) => each.tab === tab), null));
    this.body = h("div", { class: "stage" });
    this.tools = h(
      "div",
      { class: "end" },
      button(icon("beside"), () => this.#split(false), { label: "Split: new terminal beside" }),
      button(icon("below"), () => this.#split(true), { label: "Split: new terminal below" }),
      button(icon("find"), () => this.#focused?.search(), { label: "Search (Ctrl+Shift+F)" }),
      button(icon("cross"), () => this.#focused && this.close(this.#focused.id), { label: "Close this view" }),
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
      if (!view || view === this.#focused) return;
      this.#focused = view;
      this.events.changed();
    });
    this.#show(null);
  }

  #views() {
    return this.#tabs.flatMap((tab) => tab.views);
  }

  /** The open terminals: [{id, mode}]. */
  get open() {
    return this.#views().map(({ id, mode }) => ({ id, mode }));
  }

  /** The id of the terminal that had the keyboard last, or undefined. */
  get shown() {
    return this.#focused?.id;
  }

  /** Show a terminal, in a tab of its own if it isn't open yet; for `mode` see TerminalView. */
  show(id, mode = "") {
    const found = this.#tabs.find((tab) => tab.views.some((view) => view.id === id));
    if (found) {
      const view = found.views.find((each) => each.id === id);
      if (mode) view.setMode(mode);
      if (view.state === "ended") view.attachment.connect(); // a new one may have the name
      this.#show(found, view);
      return;
    }
    const tab = { views: [], panel: h("div", { class: "panes" }) };
    tab.tab = tabOf(tab.panel, () => this.#show(tab));
    this.#tabs.push(tab);
    this.tabs.append(tab.tab);
    this.body.append(tab.panel);
    this.#add(tab, id, mode);
  }

  #add(tab, id, mode) {
    const view = new TerminalView(id, mode, {
      changed: () => this.events.changed(),
      left: () => tab.tab.focus(),
    });
    tab.views.push(view);
    tab.panel.append(view.element);
    this.#label(tab);
    this.#show(tab, view);
    view.open();
    view.focus();
  }

  async #split(down) {
    const tab = this.#current;
    const made = await this.events.create();
    if (made === null) return;
    if (tab === null || this.open.some(({ id }) => id === made.id)) {
      this.show(made.id, made.mode);
      return;
    }
    tab.panel.classList.toggle("down", down);
    this.#add(tab, made.id, made.mode);
  }

  /** Show a tab, and focus a view of it: the first by default, none if it is null. */
  #show(tab, view = tab?.views[0]) {
    this.#current = tab;
    choose(this.tabs, tab?.tab);
    this.empty.hidden = tab !== null;
    this.body.hidden = tab === null;
    // A view that is only hidden keeps its screen and its connection.
    for (const each of this.#tabs) each.panel.hidden = each !== tab;
    if (tab !== null) {
      this.#focused = view ?? tab.views[0];
      if (view?.attachment) view.focus();
    }
    this.events.changed();
  }

  #label(tab) {
    const text = tab.views.map(({ id }) => this.#titles.get(id) || id).join(" | ");
    tab.tab.textContent = text;
    tab.tab.title = text;
  }

  /** Set the titles of terminals. */
  name(titles) {
    this.#titles = titles;
    for (const tab of this.#tabs) this.#label(tab);
  }

  /** Close the view of a terminal, which runs on. */
  close(id) {
    const tab = this.#tabs.find((each) => each.views.some((view) => view.id === id));
    if (!tab) return;
    const index = tab.views.findIndex((view) => view.id === id);
    tab.views[index].close();
    tab.views.splice(index, 1);
    if (tab.views.length === 0) {
      this.#tabs.splice(this.#tabs.indexOf(tab), 1);
      tab.tab.remove();
      tab.panel.remove();
    } else {
      this.#label(tab);
    }
    this.#focused = null;
    this.#show(tab.views.length ? tab : (this.#tabs.at(-1) ?? null));
  }
}
