// Plays a recording on a screen without input.
import { isSize } from "./cast.js";
import { button, h } from "./dom.js";
import { openScreen } from "./screen.js";

// Longer pauses are shortened to this.
const MAX_PAUSE_S = 2;
const SPEEDS = [1, 2, 4, 8];

export class Player {
  #cast;
  #screen;
  #next = 0; // index of the next event
  #at = 0; // seconds
  #timer = null;
  #speed = 1;

  constructor(cast) {
    this.#cast = cast;
    this.host = h("div", { class: "host" });
    this.play = button("Play", () => (this.#timer === null ? this.#go() : this.#stop()), { class: "main" });
    this.slider = h("input", {
      type: "range", min: 0, max: cast.length, step: "any", value: 0, "aria-label": "Place in the recording",
      oninput: () => this.seek(Number(this.slider.value)),
    });
    this.speed = h(
      "select",
      { "aria-label": "Speed", onchange: () => (this.#speed = Number(this.speed.value)) },
      SPEEDS.map((each) => h("option", { value: each }, `${each}×`)),
    );
    this.time = h("output", {});
    this.element = h(
      "section",
      { class: "view player", "aria-label": "Recording" },
      this.host,
      h("footer", {}, this.play, this.slider, this.time, this.speed),
    );
  }

  /** Begin to play; the element has to be in the page. */
  open() {
    const { cols, rows } = this.#cast;
    this.#screen = openScreen(this.host, { cols, rows, disableStdin: true });
    this.#showTime();
    this.#go();
  }

  #showTime() {
    this.slider.value = this.#at;
    this.time.value = `${this.#at.toFixed(0)} of ${this.#cast.length.toFixed(0)} s`;
    this.play.textContent = this.#timer === null ? "Play" : "Pause";
  }

  #apply({ kind, data }) {
    const { term } = this.#screen;
    if (kind === "o") term.write(data);
    else if (kind === "r") {
      const [cols, rows] = data.split("x").map(Number);
      if (isSize(cols, rows)) term.write("", () => term.resize(cols, rows)); // after earlier output is drawn
    }
  }

  #go() {
    if (this.#next >= this.#cast.events.length) this.seek(0);
    this.#wait();
  }

  #wait() {
    const event = this.#cast.events[this.#next];
    if (event === undefined) {
      this.#stop();
      return;
    }
    const pause = Math.min(event.at - this.#at, MAX_PAUSE_S) / this.#speed;
    this.#timer = setTimeout(() => {
      // All events of the same moment: timers are coarser than output.
      const limit = event.at + 0.01 * this.#speed;
      while (this.#cast.events[this.#next]?.at <= limit) {
        this.#at = this.#cast.events[this.#next].at;
        this.#apply(this.#cast.events[this.#next++]);
      }
      this.#showTime();
      this.#wait();
    }, pause * 1000);
    this.#showTime();
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#showTime();
  }

  /** Show the screen at a time, in seconds. */
  seek(at) {
    const plays = this.#timer !== null;
    this.#stop();
    if (at < this.#at) {
      const { term } = this.#screen;
      const { cols, rows } = this.#cast;
      term.write("", () => term.resize(cols, rows));
      term.write("\x1bc"); // RIS: reset
      this.#next = 0;
    }
    while (this.#cast.events[this.#next]?.at <= at) this.#apply(this.#cast.events[this.#next++]);
    this.#at = at;
    if (plays) this.#wait();
    this.#showTime();
  }

  close() {
    clearTimeout(this.#timer);
    this.#screen.dispose();
    this.element.remove();
  }
}
