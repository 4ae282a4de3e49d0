// How long to wait before trying again: longer each time, with jitter.

export class Backoff {
  #ms;

  constructor(firstMs = 250, mostMs = 10000) {
    this.firstMs = firstMs;
    this.mostMs = mostMs;
    this.reset();
  }

  /** The next time to wait, in milliseconds. */
  next() {
    const ms = this.#ms * (0.75 + Math.random() / 2);
    this.#ms = Math.min(this.#ms * 2, this.mostMs);
    return ms;
  }

  /** Begin again with the first time, after a success. */
  reset() {
    this.#ms = this.firstMs;
  }
}
