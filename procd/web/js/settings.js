// What the person prefers, kept in this browser. Nothing that is secret.

const KEY = "procd.settings";
const DEFAULTS = { fontSize: 14, theme: "auto", clipboard: false, screenReader: false };
const FONT_SIZES = [8, 32];

let values = { ...DEFAULTS, ...read() };
const listeners = new Set();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {}; // no storage, or somebody else's
  }
}

/** The settings now. */
export function settings() {
  return values;
}

/** Change some of them. */
export function change(changes) {
  values = { ...values, ...changes };
  const [least, most] = FONT_SIZES;
  values.fontSize = Math.min(most, Math.max(least, values.fontSize));
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // A browser that stores nothing: they hold until the page goes.
  }
  for (const listener of listeners) listener(values);
}

/** Call `listener` at each change; returns the way to stop. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
