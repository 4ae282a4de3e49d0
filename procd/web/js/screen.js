// An xterm with the renderer, links, clipboard, fonts and colours that all terminals here have.
import { FitAddon } from "../vendor/addon-fit.mjs";
import { Unicode11Addon } from "../vendor/addon-unicode11.mjs";
import { WebLinksAddon } from "../vendor/addon-web-links.mjs";
import { Terminal } from "../vendor/xterm.mjs";
import { useClipboard } from "./clipboard.js";
import { onChange, settings } from "./settings.js";
import { MIN_CONTRAST, colours, onColours } from "./theme.js";

/** The most columns or rows of a terminal. */
export const MAX_CELLS = 1000;
const SCROLLBACK_LINES = 10000;
// When to find out whether there is a GPU, which takes a moment.
const GPU_MS = 500;
const FONTS = 'ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace';

/** Open a link, only if a modifier key is held: programs may print any link. */
function openLink(event, address) {
  if (!(event.ctrlKey || event.metaKey)) return;
  if (/^https?:/i.test(address)) open(address, "_blank", "noopener,noreferrer");
}

let gpu = null; // unknown yet

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
  addon.onContextLoss(() => addon.dispose()); // falls back to elements
  term.loadAddon(addon);
}

/** Open a terminal in `parent`; returns it, its fit addon, and a function that disposes of both. */
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
