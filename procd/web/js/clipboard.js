// Copying and pasting.
import { notify } from "./dialogs.js";
import { settings } from "./settings.js";

const MAX_BYTES = 1 << 20;
// All control characters but tab and newlines: an ESC could end a bracketed paste, and the rest would be
// taken for typed. ECMA-48, sections 5.2 and 5.3.
const CONTROLS = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g; // eslint-disable-line no-control-regex

function copyFailed() {
  notify("The browser doesn't allow copying here.");
}

/** Handle OSC 52: a program sets the clipboard, if the user allows it. */
function setByProgram(data) {
  const text = data.slice(data.indexOf(";") + 1);
  if (!settings().clipboard || text === "?" || text.length > MAX_BYTES) return true;
  try {
    const bytes = Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
    navigator.clipboard?.writeText(new TextDecoder().decode(bytes)).catch(copyFailed);
  } catch {
    // It isn't base64.
  }
  return true;
}

/** Copy the selection. */
export function copySelection(term) {
  if (term.hasSelection()) navigator.clipboard?.writeText(term.getSelection()).catch(copyFailed);
}

/** Connect the clipboard to `term`, which is open in `parent`. */
export function useClipboard(term, parent) {
  term.parser.registerOscHandler(52, setByProgram);
  // Runs before xterm's own listener, for the key, the menu and the middle button.
  const paste = (event) => {
    event.preventDefault();
    event.stopPropagation();
    term.paste((event.clipboardData?.getData("text/plain") ?? "").replace(CONTROLS, ""));
  };
  parent.addEventListener("paste", paste, { capture: true });
}
