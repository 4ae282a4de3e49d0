// An xterm with what every terminal here has: renderer, links, clipboard, search, fonts, colours.
import { FitAddon } from "../vendor/addon-fit.mjs";
import { Unicode11Addon } from "../vendor/addon-unicode11.mjs";
import { WebLinksAddon } from "../vendor/addon-web-links.mjs";
import { Terminal } from "../vendor/xterm.mjs";
import { useClipboard } from "./clipboard.js";
import { onChange, settings } from "./settings.js";
import { MIN_CONTRAST, colours, onColours } from "./theme.js";

/** Of each side of a terminal. */
export const MAX_CELLS = 1000;
const SCROLLBACK_LINES = 10000;
// To find out takes a moment, and nobody has to wait for it.
const GPU_MS = 500;
const FONTS = 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';

/** A click on a link counts only with a modifier: programs write what they like. */
function openLink(event, address) {
  if (!(event.ctrlKey || event.metaKey)) return;
  if (/^https?:/i.test(address)) open(address, "_blank", "noopener,noreferrer");
}

let gpu = null; // not known yet

/** Whether there is a GPU; in software, WebGL is slower than plain elements. */
function hasGpu() {
  const context = document
    .createElement("canvas")
    .getContext("webgl2", { failIfMajorPerformanceCaveat: true });
  if (context === null) return false;
  const names = context.getExtension("WEBGL_debug_renderer_info");
  const renderer = context.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : context.RENDERER);
  context.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|software/i.test(renderer);
}

async function useGpu(term) {
  gpu ??= hasGpu();
  if (!gpu) return;
  const { WebglAddon } = await import("../vendor/addon-webgl.mjs");
  const addon = new WebglAddon();
  addon.onContextLoss(() => addon.dispose()); // back to elements
  term.loadAddon(addon);
}

/** Open a terminal in `parent`; returns it with its fit addon and the way to dispose of both. */
export function openScreen(parent, options = {}) {
  const { fontSize, screenReader } = settings();
  const term = new Terminal({
    allowProposedApi: true, // the unicode addon's
    fontFamily: FONTS,
    fontSize,
    minimumContrastRatio: MIN_CONTRAST,
    linkHandler: { activate: openLink },
    screenReaderMode: screenReader,
    scrollback: SCROLLBACK_LINES,
    theme: colours(),
    ...options,
  });
  const fit = new FitAddon();
  term.loadAddon(fit);
  term.loadAddon(new WebLinksAddon(openLink));
  term.loadAddon(new Unicode11Addon());
  term.unicode.activeVersion = "11";
  term.open(parent);
  useClipboard(term, parent);
  const stops = [
    onColours((theme) => {
      term.options.theme = theme;
    }),
    onChange((changed) => {
      term.options.fontSize = changed.fontSize;
      term.options.screenReaderMode = changed.screenReader;
    }),
  ];
  const timer = setTimeout(() => useGpu(term), GPU_MS);
  const dispose = () => {
    clearTimeout(timer);
    for (const stop of stops) stop();
    term.dispose();
  };
  return { term, fit, dispose };
}
