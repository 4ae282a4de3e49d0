// The page of terminals: the list, and the open terminals.
import { h } from "./dom.js";
import { Panes } from "./panes.js";
import { PtyList, newPty } from "./ptys.js";

const MODES = ["", "view", "keep"]; // see TerminalView

/** Keep the open terminals in the address, for a reload: `#t1&t2;view`. */
function remember(views) {
  const hash = views.map(({ id, mode }) => encodeURIComponent(id) + (mode && `;${mode}`)).join("&");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

/** The terminals that the address names; parts that aren't of this form are ignored. */
function named() {
  return location.hash
    .slice(1)
    .split("&")
    .flatMap((part) => {
      const [id, mode = ""] = part.split(";");
      try {
        return id && MODES.includes(mode) ? [{ id: decodeURIComponent(id), mode }] : [];
      } catch {
        return []; // not UTF-8
      }
    });
}

/** The page, made once. */
export function terminalsPage() {
  let list = null;
  const panes = new Panes({
    create: newPty,
    changed: () => {
      if (list === null) return;
      list.draw();
      remember(panes.open);
    },
  });
  const show = ({ id, mode }) => panes.show(id, mode);
  list = new PtyList({ show, named: (titles) => panes.name(titles) }, panes);
  const start = () => {
    named().forEach(show); // before the list: they are to be shown first
    list.follow();
    addEventListener("hashchange", () => named().forEach(show));
  };
  return { element: h("div", { class: "page" }, list.element, panes.element), start };
}
