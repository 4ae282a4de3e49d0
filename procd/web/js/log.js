// A followed log: text that grows, with stdout and stderr told apart.
import { h } from "./dom.js";

// What the page keeps; the log itself is the server's.
const MAX_CHARS = 1 << 20;
// Colours and cursor movements: this is no terminal. ECMA-48, sections 5.3 and 5.6.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g; // eslint-disable-line no-control-regex

export class Log {
  #chars = 0;
  #decoders = {};

  constructor(label) {
    this.element = h("pre", { tabindex: 0, role: "log", "aria-label": label });
  }

  /** Add text of a stream. */
  add(stream, text) {
    const clean = text.replace(ESCAPES, "");
    if (!clean) return;
    const last = this.element.lastElementChild;
    if (last?.className === stream && last.textContent.length < 4096) last.append(clean);
    else this.element.append(h("span", { class: stream }, clean));
    this.#chars += clean.length;
    while (this.#chars > MAX_CHARS && this.element.childElementCount > 1) {
      this.#chars -= this.element.firstElementChild.textContent.length;
      this.element.firstElementChild.remove();
    }
  }

  /** Add bytes of a stream; a character may come in parts. */
  addBytes(stream, bytes) {
    this.#decoders[stream] ??= new TextDecoder();
    this.add(stream, this.#decoders[stream].decode(bytes, { stream: true }));
  }
}
