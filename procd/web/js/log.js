// A followed log: text that grows, with stdout and stderr told apart, and whose end is kept in sight.
// However fast it comes, it is drawn a few times a second, and of what is too much the oldest lines
// go: the whole log is the server's to keep.
import { h } from "./dom.js";

const MAX_LINES = 10000;
const MAX_CHARS = 1 << 20;
// A block is what the browser lays out anew when something is added to it. None ends with an empty
// line, nor with the newline of its last: being a block, it is a line's end by itself.
const BLOCK_LINES = 100;
const BLOCK_CHARS = 16 << 10;
const PIECES = /[^\n]{0,8191}\n|[^\n]{1,8192}/g;
const NEWLINE = 10;
// How long to rest between two drawings, as a multiple of what the first of them took.
const REST = 3;
// Colours and cursor movements: this is no terminal. ECMA-48, sections 5.3 and 5.6.
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])/g; // eslint-disable-line no-control-regex

// A carriage return has what comes next written over the line, by progress bars mostly. Here that gets a
// line of its own.
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
  #torn = false; // what comes next begins somewhere in a line
  #restsUntil = 0;
  #decoders = {};
  #returns = {}; // of a stream: those at its end, until it is known what comes next
  #begins = true; // what comes next begins a line
  #blocks = []; // {element, lines, chars, whole: may it end here}, oldest first
  #lines = 0;
  #chars = 0;

  /** `drawn()` is called when all that had come has been drawn. */
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

  /** Something is left out before what comes next. */
  skip() {
    this.#waiting = [];
    this.#waitingBytes = 0;
    this.#torn = true;
    this.#clear();
  }

  /** If more waits than may be shown, let go of it but for its end, and of what is shown. */
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
    const begun = performance.now();
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
    this.#restsUntil = drawn + REST * (drawn - begun);
    this.drawn();
  }

  /** The bytes from the first whole line on, if that is still to come. */
  #whole(bytes) {
    if (!this.#torn) return bytes;
    this.#torn = false;
    return bytes.subarray(bytes.indexOf(NEWLINE) + 1);
  }

  /** What can be shown of these bytes; a character may come in parts, and so may a line's end. */
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

  /** The block that grows. */
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

  /** Let go of the oldest block. */
  #drop() {
    const block = this.#blocks.shift();
    block.element.remove();
    this.#lines -= block.lines;
    this.#chars -= block.chars;
    this.cut.hidden = false;
  }
}
