// How long to wait before trying again: longer each time, and not all pages at the same moment.

export class Backoff {
  #ms;

  constructor(firstMs = 250, mostMs = 10000) {
    this.firstMs = firstMs;
    this.mostMs = mostMs;
    this.reset();
  }

  /** The time to wait now, in milliseconds. */
  next() {
    const ms = this.#ms * (0.75 + Math.random() / 2);
    this.#ms = Math.min(this.#ms * 2, this.mostMs);
    return ms;
  }

  /** It has worked. */
  reset() {
    this.#ms = this.firstMs;
  }
}
