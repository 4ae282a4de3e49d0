// The search bar of one terminal; the addon is loaded when it is first opened.
import { button, h } from "./dom.js";
import { icon } from "./icons.js";
import { marks } from "./theme.js";

/** Make a search bar, which is hidden until `open()`. */
export function searchBar(term) {
  let addon = null;
  const input = h("input", { type: "search", "aria-label": "Search the output", placeholder: "Search" });
  const count = h("output", { "aria-live": "polite" });
  const close = () => {
    bar.hidden = true;
    addon?.clearDecorations();
    term.focus();
  };
  const find = (backwards, incremental) => {
    const options = { decorations: marks(), incremental };
    if (backwards) addon?.findPrevious(input.value, options);
    else addon?.findNext(input.value, options);
  };
  const bar = h(
    "div",
    { class: "search", role: "search", hidden: true },
    input,
    count,
    button(icon("up"), () => find(true), { label: "Previous match" }),
    button(icon("down"), () => find(false), { label: "Next match" }),
    button(icon("cross"), close, { label: "Close search" }),
  );
  input.addEventListener("input", () => find(true, true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") find(!event.shiftKey);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
  const open = async () => {
    bar.hidden = false;
    input.focus();
    input.select();
    if (addon !== null) return;
    const { SearchAddon } = await import("../vendor/addon-search.mjs");
    addon = new SearchAddon();
    term.loadAddon(addon);
    addon.onDidChangeResults(({ resultIndex, resultCount }) => {
      count.value = resultCount ? `${resultIndex + 1} of ${resultCount}` : "none";
    });
    if (input.value) find(true, true);
  };
  return { bar, open };
}
