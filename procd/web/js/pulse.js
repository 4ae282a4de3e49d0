// Whether a WebSocket still leads anywhere. When a machine or a network goes without a word, the
// browser doesn't notice, and of the server's own pings it tells the page nothing.

const BEAT_MS = 5000;

export class Pulse {
  #asked = false;

  /** `ask()` has the server say something; `lost()` is called, once, if it says nothing at all. */
  constructor(ask, lost) {
    this.timer = setInterval(() => {
      if (this.#asked) {
        this.stop();
        lost();
      } else {
        this.#asked = true;
        ask();
      }
    }, BEAT_MS);
  }

  /** The server has said something. */
  heard() {
    this.#asked = false;
  }

  stop() {
    clearInterval(this.timer);
  }
}
