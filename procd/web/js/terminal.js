// One terminal: a screen, its connection, and the state of both.
import { Attachment } from "./attachment.js";
import { copySelection } from "./clipboard.js";
import { button, h } from "./dom.js";
import { followCursor } from "./follow_cursor.js";
import { icon } from "./icons.js";
import { replyIf } from "./query_replies.js";
import { MAX_CELLS, openScreen } from "./screen.js";
import { searchBar } from "./search.js";
import { onChange } from "./settings.js";

const RETRIABLE = new Set(["waiting", "replaced", "kicked", "forbidden", "failed"]);

export class TerminalView {
  #screen;
  #presence = null;
  #typing; // the mode to return to
  #observer;
  #sent = ""; // the size that was sent last

  /**
   * `mode`: "" types and fits the terminal to the window, "keep" types and keeps the terminal's size,
   * "view" only watches.
   * `events`: changed() when the state or the mode changes; left() to give the keyboard back to the page.
   */
  constructor(id, mode, events) {
    this.id = id;
    this.mode = mode;
    this.#typing = mode === "view" ? "" : mode;
    this.events = events;
    this.state = "connecting";
    this.host = h("div", { class: "host" });
    this.text = h("span", { role: "status", class: "state" });
    this.others = h("span", { class: "people" });
    this.reconnect = button("Connect", () => this.attachment.connect(), { class: "again" });
    this.fitting = button("Fit to window", () => this.setMode(""), {
      label: "Give the terminal the size of this window",
    });
    this.viewing = button(icon("eye"), () => this.setMode(this.mode === "view" ? this.#typing : "view"), {
      label: "View only",
    });
    this.takeOver = button("Take over", () => this.attachment.takeOver(), {
      label: "Send away everybody else who types here",
    });
    this.element = h("section", { class: "view", "aria-label": `Terminal ${id}`, "data-id": id });
    this.#showButtons();
  }

  /** Connect; the element has to be in the page. */
  open() {
    const events = {
      output: (bytes, drawn) => this.#screen.term.write(bytes, drawn),
      reset: () => this.#afterOutput(() => this.#screen.term.reset()),
      sized: (cols, rows) => this.#resize(cols, rows),
      state: (state, text) => this.#showState(state, text),
      presence: (message) => this.#showPresence(message),
    };
    this.attachment = new Attachment(this.id, events, this.mode === "view");
    this.attachment.connect(); // the server replies while the screen is made
    this.#screen = openScreen(this.host);
    const { term } = this.#screen;
    const search = searchBar(term);
    this.search = search.open;
    this.element.append(
      search.bar,
      this.host,
      h("footer", {}, this.text, this.reconnect, this.others, this.fitting, this.viewing, this.takeOver),
    );
    replyIf(term, () => this.#presence === null || this.#presence.active === this.#presence.you);
    term.onData((data) => this.attachment.type(data));
    term.onBinary((data) =>
      this.attachment.type(Uint8Array.from(data, (each) => each.charCodeAt(0))),
    );
    term.attachCustomKeyEventHandler((event) => this.#key(event));
    term.textarea.setAttribute(
      "aria-label",
      `Terminal ${this.id}. Shift+F6 leaves it, Ctrl+Shift+F searches.`,
    );
    this.unfollow = followCursor(term, this.host);
    this.#observer = new ResizeObserver(() => this.fit());
    this.#observer.observe(this.host);
    this.visibility = () => this.fit();
    document.addEventListener("visibilitychange", this.visibility);
    this.unsettle = onChange(() => this.fit()); // after the screen's font has changed
    term.textarea.addEventListener("focus", () => this.fit({ again: true }));
    this.fit();
  }

  #key(event) {
    if (event.type !== "keydown") return true;
    const handled = (act) => {
      event.preventDefault();
      act();
      return false;
    };
    if (event.shiftKey && event.key === "F6") return handled(() => this.events.left?.());
    if (!(event.ctrlKey && event.shiftKey)) return true;
    if (event.code === "KeyC") return handled(() => copySelection(this.#screen.term));
    if (event.code === "KeyF") return handled(() => this.search());
    return event.code !== "KeyV"; // the browser pastes, and xterm brackets it
  }

  /** Change the mode. */
  setMode(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    if (mode !== "view") this.#typing = mode;
    if (this.attachment.viewer === (mode === "view")) this.fit({ again: true });
    else this.attachment.setViewer(mode === "view");
    this.#showButtons();
    this.events.changed?.();
  }

  /** Show the buttons of the modes that are possible. */
  #showButtons() {
    const me = this.#presence?.clients.find((client) => client.id === this.#presence.you);
    this.fitting.hidden = this.mode !== "keep" || this.state !== "live";
    this.viewing.hidden = me === undefined || (me.viewer && this.mode !== "view");
    this.viewing.setAttribute("aria-pressed", String(this.mode === "view"));
    this.takeOver.hidden = !me || me.viewer || this.#presence.clients.filter((each) => !each.viewer).length < 2;
  }

  /**
   * Send the window's size if it has changed, or `again`, because the size that was sent last may
   * count; the server decides what the terminal's size becomes.
   */
  fit({ again = false } = {}) {
    if (this.mode === "keep") return;
    const size = this.#screen.fit.proposeDimensions();
    if (!size || !size.cols || !size.rows) {
      if (this.#presence) this.#sendSize(this.#presence.cols, this.#presence.rows, false, again);
      return;
    }
    const cols = Math.min(MAX_CELLS, Math.max(1, size.cols));
    const rows = Math.min(MAX_CELLS, Math.max(1, size.rows));
    this.#sendSize(cols, rows, !document.hidden, again);
  }

  #sendSize(cols, rows, visible, again) {
    const size = [cols, rows, visible].join();
    if (size === this.#sent && !again) return;
    this.#sent = size;
    this.attachment.sendSize(cols, rows, visible);
  }

  /** Call `act` once the screen shows all output that came before. */
  #afterOutput(act) {
    this.#screen.term.write("", act);
  }

  #resize(cols, rows) {
    this.#afterOutput(() => this.#screen.term.resize(cols, rows));
  }

  #showPresence(message) {
    this.#presence = message;
    this.#resize(message.cols, message.rows);
    const me = message.clients.find((client) => client.id === message.you);
    const others = message.clients.filter((client) => client.id !== message.you);
    const names = others.map((client) => client.name + (client.viewer ? " (viewer)" : ""));
    const parts = [`${message.cols}×${message.rows}`];
    if (message.policy === "smallest" && others.length) parts.push("smallest window");
    if (me?.viewer) parts.push("read only");
    if (names.length) parts.push(`with ${names.join(", ")}`);
    this.others.textContent = parts.join(" · ");
    this.others.title = this.others.textContent;
    this.element.classList.toggle("viewer", me?.viewer ?? false);
    this.#screen.term.options.disableStdin = me?.viewer ?? false;
    this.#showButtons();
  }

  #showState(state, text) {
    this.state = state;
    this.element.dataset.state = state;
    this.text.textContent = text;
    this.reconnect.hidden = !RETRIABLE.has(state);
    if (state !== "live") {
      this.#presence = null;
      this.others.textContent = "";
    }
    this.#showButtons();
    this.events.changed?.();
  }

  focus() {
    this.#screen.term.focus();
  }

  /** Close the view; the terminal runs on. */
  close() {
    document.removeEventListener("visibilitychange", this.visibility);
    this.unsettle();
    this.unfollow();
    this.#observer.disconnect();
    this.attachment.close();
    this.#screen.dispose();
    this.element.remove();
  }
}
