// The search bar of one terminal; the addon is fetched when it is first needed.
import { button, h } from "./dom.js";

const MARKS = {
  matchBackground: "#fff2a8", matchOverviewRuler: "#d29922",
  activeMatchBackground: "#ffb454", activeMatchColorOverviewRuler: "#b3261e",
};

/** A bar that is hidden until `open()`. */
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
    const options = { decorations: MARKS, incremental };
    if (backwards) addon?.findPrevious(input.value, options);
    else addon?.findNext(input.value, options);
  };
  const bar = h(
    "div",
    { class: "search", role: "search", hidden: true },
    input,
    count,
    button("↑", () => find(true), { label: "Previous match" }),
    button("↓", () => find(false), { label: "Next match" }),
    button("×", close, { label: "Close search" }),
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
