// A followed log: text that grows, with stdout and stderr in different colours, scrolled to its end.
// It is drawn a few times a second, however fast it grows, and its oldest lines are removed: the server
// keeps the whole log.
import { h } from "./dom.js";

const MAX_LINES = 10000;
const MAX_CHARS = 1 << 20;
// The browser lays out a block anew when text is added to it. No block ends with an empty line or with
// the newline of its last line: the end of a block ends the line.
const BLOCK_LINES = 100;
const BLOCK_CHARS = 16 << 10;
const PIECES = /[^\n]{0,8191}\n|[^\n]{1,8192}/g;
const NEWLINE = 10;
// The pause after drawing, as a multiple of the time that drawing took.
const REST = 3;
// Escape sequences, which are dropped: colours, cursor movements. ECMA-48, sections 5.3 and 5.6.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g; // eslint-disable-line no-control-regex

// After a carriage return a terminal overwrites the line, mostly with a progress bar. Here a new line
// begins.
const RETURNED_NEWLINES = /\r+\n/g;
const RETURNS = /\n?\r+/g;

const encoder = new TextEncoder();

function isFull({ lines, chars, whole }) {
  return chars >= 2 * BLOCK_CHARS || (whole && (lines >= BLOCK_LINES || chars >= BLOCK_CHARS));
}

export class Log {
  #waiting = []; // [stream, bytes], to be drawn
  #waitingBytes = 0;
  #planned = false;
  #midLine = false; // the next bytes begin somewhere in a line
  #restsUntil = 0;
  #decoders = {};
  #returns = {}; // by stream: carriage returns at its end, until the next text is known
  #begins = true; // the next text begins a line
  #blocks = []; // {element, lines, chars, whole: may it end here}, oldest first
  #lines = 0;
  #chars = 0;

  /** `drawn()` is called when everything received has been drawn. */
  constructor(label, drawn = () => {}) {
    this.drawn = drawn;
    this.cut = h("p", { class: "cut", hidden: true }, "What came earlier isn't shown.");
    this.element = h("pre", { tabindex: 0, role: "log", "aria-label": label }, this.cut);
  }

  /** Add text of a stream. */
  add(stream, text) {
    this.addBytes(stream, encoder.encode(text));
  }

  /** Add bytes of a stream; a character may come in parts. */
  addBytes(stream, bytes) {
    this.#waiting.push([stream, bytes]);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes > 2 * MAX_CHARS) this.#forget();
    if (this.#planned) return;
    this.#planned = true;
    const draw = () => requestAnimationFrame(() => this.#draw());
    const restMs = this.#restsUntil - performance.now();
    if (restMs > 0) setTimeout(draw, restMs);
    else draw();
  }

  /** Begin anew: output before the next is missing. */
  skip() {
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#midLine = true;
    this.#clear();
  }

  /** If more waits than can be shown, keep only its end, and remove what is shown. */
  #forget() {
    let first = this.#waiting.length;
    let [lines, bytes] = [0, 0];
    while (first > 0 && lines <= MAX_LINES && bytes <= MAX_CHARS) {
      const piece = this.#waiting[--first][1];
      let place = piece.length;
      while (place >= 0 && lines <= MAX_LINES) {
        place = place > 0 ? piece.lastIndexOf(NEWLINE, place - 1) : -1;
        if (place >= 0) lines++;
      }
      this.#waiting[first][1] = piece.subarray(place + 1);
      bytes += piece.length - place - 1;
    }
    if (lines <= MAX_LINES && bytes <= MAX_CHARS) return;
    this.#waiting.splice(0, first);
    this.#waitingBytes = bytes;
    this.#clear();
  }

  #clear() {
    this.#decoders = {};
    this.#returns = {};
    this.#begins = true;
    while (this.#blocks.length) this.#drop();
    this.cut.hidden = false;
  }

  #draw() {
    const began = performance.now();
    const { element } = this;
    const atEnd = element.scrollTop + element.clientHeight >= element.scrollHeight - 4;
    this.#forget();
    for (const [stream, bytes] of this.#waiting) {
      this.#append(stream, this.#text(stream, this.#whole(bytes)));
    }
    this.#waiting = [];
    this.#waitingBytes = 0;
    while (this.#blocks.length > 1 && (this.#lines > MAX_LINES || this.#chars > MAX_CHARS)) this.#drop();
    if (atEnd) element.scrollTop = element.scrollHeight;
    this.#planned = false;
    const drawn = performance.now();
    this.#restsUntil = drawn + REST * (drawn - began);
    this.drawn();
  }

  /** The bytes without the part of a line at their beginning, after `skip`. */
  #whole(bytes) {
    if (!this.#midLine) return bytes;
    this.#midLine = false;
    return bytes.subarray(bytes.indexOf(NEWLINE) + 1);
  }

  /** Decode the text to show; characters and line ends may be split between calls. */
  #text(stream, bytes) {
    this.#decoders[stream] ??= new TextDecoder();
    const decoded = this.#decoders[stream].decode(bytes, { stream: true }).replace(ESCAPES, "");
    const all = (this.#returns[stream] ?? "") + decoded;
    let end = all.length;
    while (all[end - 1] === "\r") end--;
    this.#returns[stream] = all.slice(end);
    const text = all.slice(0, end).replace(RETURNED_NEWLINES, "\n");
    const lines = text.replace(RETURNS, "\n").slice(Number(this.#begins && text[0] === "\r"));
    if (lines) this.#begins = lines.endsWith("\n");
    return lines;
  }

  #append(stream, text) {
    let block = this.#block();
    let part = "";
    const put = () => {
      const last = block.element.lastElementChild;
      if (last?.className === stream) last.append(part);
      else if (part) block.element.append(h("span", { class: stream }, part));
      part = "";
    };
    for (const piece of text.match(PIECES) ?? []) {
      if (isFull(block)) {
        put();
        block = this.#block();
      }
      part += piece;
      const ends = Number(piece.endsWith("\n"));
      block.whole = ends && piece.length > 1;
      block.lines += ends;
      block.chars += piece.length;
      this.#lines += ends;
      this.#chars += piece.length;
    }
    put();
  }

  /** The block to append to. */
  #block() {
    const last = this.#blocks.at(-1);
    if (last && !isFull(last)) return last;
    if (last?.whole) {
      const text = last.element.lastElementChild.lastChild;
      text.deleteData(text.length - 1, 1);
    }
    const block = { element: h("div", {}), lines: 0, chars: 0, whole: false };
    this.#blocks.push(block);
    this.element.append(block.element);
    return block;
  }

  /** Remove the oldest block. */
  #drop() {
    const block = this.#blocks.shift();
    block.element.remove();
    this.#lines -= block.lines;
    this.#chars -= block.chars;
    this.cut.hidden = false;
  }
}
