// Light and dark colours, as the system has them or as chosen.
import { change, onChange, settings } from "./settings.js";

// The six colours of a palette are legible on its background, and black is on them: programs use them for
// text and for backgrounds. MIN_CONTRAST corrects other combinations.
const LIGHT = {
  background: "#ffffff", foreground: "#1f2328", cursor: "#1f2328", cursorAccent: "#ffffff",
  selectionBackground: "#b6d6fd",
  black: "#000000", brightBlack: "#59636e", white: "#d0d7de", brightWhite: "#ffffff",
  red: "#e02936", green: "#138736", yellow: "#a06b00",
  blue: "#106ef2", magenta: "#a54cd2", cyan: "#088193",
  brightRed: "#c31c27", brightGreen: "#10722e", brightYellow: "#885a00",
  brightBlue: "#0b5dd1", brightMagenta: "#9431c5", brightCyan: "#076d7d",
};
const DARK = {
  background: "#0d1117", foreground: "#e6edf3", cursor: "#e6edf3", cursorAccent: "#0d1117",
  selectionBackground: "#264f78",
  black: "#010409", brightBlack: "#8b949e", white: "#b1bac4", brightWhite: "#ffffff",
  red: "#ea6f77", green: "#19ac45", yellow: "#ca8700",
  blue: "#5195f6", magenta: "#bd7ade", cyan: "#0aa4bb",
  brightRed: "#f19ba1", brightGreen: "#1dcd52", brightYellow: "#f4a200",
  brightBlue: "#86b6f9", brightMagenta: "#d0a1e8", brightCyan: "#0cc5e1",
};
// Colours of all matches of a search, and of the current one.
const LIGHT_MARKS = {
  matchBackground: "#fff1a8", matchOverviewRuler: "#b38600",
  activeMatchBackground: "#ffb454", activeMatchColorOverviewRuler: "#c41c27",
};
const DARK_MARKS = {
  matchBackground: "#574500", matchOverviewRuler: "#ca8700",
  activeMatchBackground: "#9e4c00", activeMatchColorOverviewRuler: "#ea6f77",
};
/** Contrast of text and background. Source: WCAG 2.2, success criterion 1.4.3. */
export const MIN_CONTRAST = 4.5;

const THEMES = {
  auto: { text: "as the system", sign: "screen" },
  light: { text: "light", sign: "sun" },
  dark: { text: "dark", sign: "moon" },
};
const ORDER = Object.keys(THEMES);

const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

let shown; // the theme of the page: "dark" or "light"

function wanted() {
  const { theme } = settings();
  if (theme !== "auto") return theme;
  return system.matches ? "dark" : "light";
}

// The only reader of `system.matches`: Chromium reports no change that was read before.
function apply() {
  shown = wanted();
  document.documentElement.dataset.theme = shown;
  for (const listener of listeners) listener(colours());
}

/** The chosen theme: {text, sign}. */
export function theme() {
  return THEMES[settings().theme] ?? THEMES.auto;
}

/** The current colours of terminals. */
export function colours() {
  return shown === "dark" ? DARK : LIGHT;
}

/** The current colours of search matches. */
export function marks() {
  return shown === "dark" ? DARK_MARKS : LIGHT_MARKS;
}

/** Call `listener` with the colours when they change; returns a function that stops it. */
export function onColours(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Switch to the next of: the system's, light, dark. */
export function nextTheme() {
  change({ theme: ORDER[(ORDER.indexOf(settings().theme) + 1) % ORDER.length] });
}

system.addEventListener("change", apply);
onChange(apply);
apply();
