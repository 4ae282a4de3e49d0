// What goes into the clipboard and what comes out of it.
import { notify } from "./dialogs.js";
import { settings } from "./settings.js";

const MAX_BYTES = 1 << 20;
// All control characters but tab and newlines. An ESC could end the brackets that tell a program
// what is pasted, and what follows would be typed. ECMA-48, sections 5.2 and 5.3.
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g; // eslint-disable-line no-control-regex

function copyFailed() {
  notify("The browser doesn't allow copying here.");
}

/** OSC 52: a program puts text into the clipboard, if the person has allowed that. */
function takeFromProgram(data) {
  const text = data.slice(data.indexOf(";") + 1);
  if (!settings().clipboard || text === "?" || text.length > MAX_BYTES) return true;
  try {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    navigator.clipboard?.writeText(new TextDecoder().decode(bytes)).catch(copyFailed);
  } catch {
    // Not base64: the program's mistake.
  }
  return true;
}

/** Copy what is selected. */
export function copySelection(term) {
  if (term.hasSelection()) navigator.clipboard?.writeText(term.getSelection()).catch(copyFailed);
}

/** Connect the clipboard with `term`, which is open in `parent`. */
export function useClipboard(term, parent) {
  term.parser.registerOscHandler(52, takeFromProgram);
  // Before xterm's own listener, whether by key, by menu or by the middle button.
  const paste = (event) => {
    event.preventDefault();
    event.stopPropagation();
    term.paste((event.clipboardData?.getData("text/plain") ?? "").replace(CONTROLS, ""));
  };
  parent.addEventListener("paste", paste, { capture: true });
}
