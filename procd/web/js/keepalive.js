// Detects a WebSocket whose connection is lost silently. The browser doesn't notice that, and doesn't
// show the server's pings to the page.

const INTERVAL_MS = 5000;

export class Keepalive {
  #asked = false;

  /** `ask()` makes the server send a message; `lost()` is called once if it sends none. */
  constructor(ask, lost) {
    this.timer = setInterval(() => {
      if (this.#asked) {
        this.stop();
        lost();
      } else {
        this.#asked = true;
        ask();
      }
    }, INTERVAL_MS);
  }

  /** A message has come from the server. */
  heard() {
    this.#asked = false;
  }

  stop() {
    clearInterval(this.timer);
  }
}
