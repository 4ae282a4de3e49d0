// Light and dark, by the system or by choice.
import { change, onChange, settings } from "./settings.js";

const LIGHT = {
  background: "#ffffff", foreground: "#1f2328", cursor: "#1f2328", cursorAccent: "#ffffff",
  selectionBackground: "#b6d6fd", black: "#24292f", red: "#b3261e", green: "#116329",
  yellow: "#7a4d00", blue: "#0550ae", magenta: "#8250df", cyan: "#116a75", white: "#6e7781",
  brightBlack: "#57606a", brightRed: "#a40e26", brightGreen: "#1a7f37", brightYellow: "#633c01",
  brightBlue: "#0969da", brightMagenta: "#6639ba", brightCyan: "#3192aa", brightWhite: "#8c959f",
};
const DARK = {
  background: "#0d1117", foreground: "#e6edf3", cursor: "#e6edf3", cursorAccent: "#0d1117",
  selectionBackground: "#264f78", black: "#484f58", red: "#ff7b72", green: "#3fb950",
  yellow: "#d29922", blue: "#58a6ff", magenta: "#bc8cff", cyan: "#39c5cf", white: "#b1bac4",
  brightBlack: "#8b949e", brightRed: "#ffa198", brightGreen: "#56d364", brightYellow: "#e3b341",
  brightBlue: "#79c0ff", brightMagenta: "#d2a8ff", brightCyan: "#56d4dd", brightWhite: "#ffffff",
};
const ORDER = ["auto", "light", "dark"];

const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

function name() {
  const { theme } = settings();
  if (theme !== "auto") return theme;
  return system.matches ? "dark" : "light";
}

function apply() {
  document.documentElement.dataset.theme = name();
  for (const listener of listeners) listener(colours());
}

/** The terminal's colours now. */
export function colours() {
  return name() === "dark" ? DARK : LIGHT;
}

/** Call `listener` with the colours when they change; returns the way to stop. */
export function onColours(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** The system's, light, dark, and again. */
export function nextTheme() {
  change({ theme: ORDER[(ORDER.indexOf(settings().theme) + 1) % ORDER.length] });
}

system.addEventListener("change", apply);
onChange(apply);
apply();
