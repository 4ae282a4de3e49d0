// One terminal: a screen, its connection, and what is said about both.
import { answerIf } from "./answers.js";
import { Attachment } from "./attachment.js";
import { copySelection } from "./clipboard.js";
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { MAX_CELLS, openScreen } from "./screen.js";
import { searchBar } from "./search.js";
import { onChange } from "./settings.js";
import { keepInSight } from "./sight.js";

const RETRIABLE = new Set(["waiting", "replaced", "kicked", "forbidden", "failed"]);

export class TerminalView {
  #screen;
  #presence = null;
  #typing; // the mode to go back to
  #observer;
  #told = "";

  /**
   * `mode`: "" types and has the terminal fit the window, "keep" types and leaves the terminal's size
   * alone, "view" only looks on.
   * `events`: changed() when its state or mode does; left() to give the keyboard back to the page.
   */
  constructor(id, mode, events) {
    this.id = id;
    this.mode = mode;
    this.#typing = mode === "view" ? "" : mode;
    this.events = events;
    this.state = "connecting";
    this.host = h("div", { class: "host" });
    this.text = h("span", { role: "status", class: "state" });
    this.people = h("span", { class: "people" });
    this.again = button("Connect", () => this.attachment.connect(), { class: "again" });
    this.fitting = button("Fit to window", () => this.become(""), {
      label: "Give the terminal the size of this window",
    });
    this.viewing = button(icon("eye"), () => this.become(this.mode === "view" ? this.#typing : "view"), {
      label: "View only",
    });
    this.takeOver = button("Take over", () => this.attachment.takeOver(), {
      label: "Send away everybody else who types here",
    });
    this.element = h("section", { class: "view", "aria-label": `Terminal ${id}`, "data-id": id });
    this.#offer();
  }

  /** Begin, once the element is in the page. */
  open() {
    const events = {
      output: (bytes, drawn) => this.#screen.term.write(bytes, drawn),
      reset: () => this.#inOrder(() => this.#screen.term.reset()),
      sized: (cols, rows) => this.#sized(cols, rows),
      state: (state, text) => this.#show(state, text),
      presence: (message) => this.#attended(message),
    };
    this.attachment = new Attachment(this.id, events, this.mode === "view");
    this.attachment.connect(); // the server answers while the screen is made
    this.#screen = openScreen(this.host);
    const { term } = this.#screen;
    const search = searchBar(term);
    this.search = search.open;
    this.element.append(
      search.bar,
      this.host,
      h("footer", {}, this.text, this.again, this.people, this.fitting, this.viewing, this.takeOver),
    );
    answerIf(term, () => this.#presence === null || this.#presence.active === this.#presence.you);
    term.onData((data) => this.attachment.type(data));
    term.onBinary((data) =>
      this.attachment.type(Uint8Array.from(data, (each) => each.charCodeAt(0))),
    );
    term.attachCustomKeyEventHandler((event) => this.#key(event));
    term.textarea.setAttribute(
      "aria-label",
      `Terminal ${this.id}. Shift+F6 leaves it, Ctrl+Shift+F searches.`,
    );
    this.unfollow = keepInSight(term, this.host);
    this.#observer = new ResizeObserver(() => this.fit());
    this.#observer.observe(this.host);
    this.visibility = () => this.fit();
    document.addEventListener("visibilitychange", this.visibility);
    this.unsettle = onChange(() => this.fit()); // after the screen has taken another font
    term.textarea.addEventListener("focus", () => this.fit({ again: true }));
    this.fit();
  }

  #key(event) {
    if (event.type !== "keydown") return true;
    const done = (act) => {
      event.preventDefault();
      act();
      return false;
    };
    if (event.shiftKey && event.key === "F6") return done(() => this.events.left?.());
    if (!(event.ctrlKey && event.shiftKey)) return true;
    if (event.code === "KeyC") return done(() => copySelection(this.#screen.term));
    if (event.code === "KeyF") return done(() => this.search());
    return event.code !== "KeyV"; // the browser pastes, and xterm brackets it
  }

  /** Change the mode. */
  become(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    if (mode !== "view") this.#typing = mode;
    if (this.attachment.viewer === (mode === "view")) this.fit({ again: true });
    else this.attachment.look(mode === "view");
    this.#offer();
    this.events.changed?.();
  }

  /** Offer the other modes, and only where they are possible. */
  #offer() {
    const me = this.#presence?.clients.find((client) => client.id === this.#presence.you);
    this.fitting.hidden = this.mode !== "keep" || this.state !== "live";
    this.viewing.hidden = me === undefined || (me.viewer && this.mode !== "view");
    this.viewing.setAttribute("aria-pressed", String(this.mode === "view"));
    this.takeOver.hidden = !me || me.viewer || this.#presence.clients.filter((each) => !each.viewer).length < 2;
  }

  /**
   * Tell the window's size, if it has changed or is to be told `again`, since the one told last may
   * count; what becomes of it is the server's to say.
   */
  fit({ again = false } = {}) {
    if (this.mode === "keep") return;
    const size = this.#screen.fit.proposeDimensions();
    if (!size || !size.cols || !size.rows) {
      if (this.#presence) this.#tell(this.#presence.cols, this.#presence.rows, false, again);
      return;
    }
    const cols = Math.min(MAX_CELLS, Math.max(1, size.cols));
    const rows = Math.min(MAX_CELLS, Math.max(1, size.rows));
    this.#tell(cols, rows, !document.hidden, again);
  }

  #tell(cols, rows, visible, again) {
    const told = [cols, rows, visible].join();
    if (told === this.#told && !again) return;
    this.#told = told;
    this.attachment.tellSize(cols, rows, visible);
  }

  /** Do something to the screen when all output that came before is on it. */
  #inOrder(act) {
    this.#screen.term.write("", act);
  }

  #sized(cols, rows) {
    this.#inOrder(() => this.#screen.term.resize(cols, rows));
  }

  #attended(message) {
    this.#presence = message;
    this.#sized(message.cols, message.rows);
    const me = message.clients.find((client) => client.id === message.you);
    const others = message.clients.filter((client) => client.id !== message.you);
    const names = others.map((client) => client.name + (client.viewer ? " (viewer)" : ""));
    const parts = [`${message.cols}×${message.rows}`];
    if (message.policy === "smallest" && others.length) parts.push("smallest window");
    if (me?.viewer) parts.push("read only");
    if (names.length) parts.push(`with ${names.join(", ")}`);
    this.people.textContent = parts.join(" · ");
    this.people.title = this.people.textContent;
    this.element.classList.toggle("viewer", me?.viewer ?? false);
    this.#screen.term.options.disableStdin = me?.viewer ?? false;
    this.#offer();
  }

  #show(state, text) {
    this.state = state;
    this.element.dataset.state = state;
    this.text.textContent = text;
    this.again.hidden = !RETRIABLE.has(state);
    if (state !== "live") {
      this.#presence = null;
      this.people.textContent = "";
    }
    this.#offer();
    this.events.changed?.();
  }

  focus() {
    this.#screen.term.focus();
  }

  /** Close the view; the terminal goes on. */
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
