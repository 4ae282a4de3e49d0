// Reads asciicast v3: a header, then events, each with the time since the one before.
import { MAX_CELLS } from "./screen.js";

/** Whether a terminal can have this size; recordings may come from anywhere. */
export const isSize = (...sides) => sides.every((cells) => Number.isInteger(cells) && cells > 0 && cells <= MAX_CELLS);

/** Parse a recording: {cols, rows, events: [{at (seconds), kind, data}], length (seconds)}. */
export function parseCast(text) {
  const [first, ...rest] = text.split("\n").filter((line) => line && !line.startsWith("#"));
  const header = JSON.parse(first);
  if (header.version !== 3) throw new Error("This is no asciicast of version 3.");
  const { cols, rows } = header.term;
  if (!isSize(cols, rows)) throw new Error("It is of no size that a terminal can have.");
  let at = 0;
  const events = [];
  for (const line of rest) {
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      break; // the recording is still being written
    }
    at += event[0];
    events.push({ at, kind: event[1], data: event[2] });
  }
  return { cols, rows, events, length: at };
}
