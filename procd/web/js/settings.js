// The user's preferences, kept in this browser. No secrets.

const KEY = "procd.settings";
const DEFAULTS = { fontSize: 14, theme: "auto", clipboard: false, screenReader: false };
const FONT_SIZES = [8, 32];

let values = { ...DEFAULTS, ...read() };
const listeners = new Set();

function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {}; // no storage, or no JSON in it
  }
}

/** The current settings. */
export function settings() {
  return values;
}

/** Change some settings. */
export function change(changes) {
  values = { ...values, ...changes };
  const [least, most] = FONT_SIZES;
  values.fontSize = Math.min(most, Math.max(least, values.fontSize));
  try {
    localStorage.setItem(KEY, JSON.stringify(values));
  } catch {
    // The browser stores nothing: they last as long as the page.
  }
  for (const listener of listeners) listener(values);
}

/** Call `listener` at each change; returns a function that stops it. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
