// The page of terminals: the list, and what is open.
import { h } from "./dom.js";
import { Panes } from "./panes.js";
import { PtyList, newPty } from "./ptys.js";

/** Keep what is open in the address, so that a reload shows it again. */
function remember(ids) {
  const hash = ids.map(encodeURIComponent).join("&");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

/** The page, made once. */
export function terminalsPage() {
  let list = null;
  const panes = new Panes({
    create: newPty,
    changed: () => {
      list?.draw();
      if (list) remember(panes.open);
    },
    left: () => list?.element.querySelector("button")?.focus(),
  });
  const wanted = location.hash.slice(1).split("&").filter(Boolean).map(decodeURIComponent);
  const element = h("div", { class: "page" });
  element.append(panes.element);
  const start = () => {
    for (const id of wanted) panes.show(id);
    list = new PtyList({ show: (id) => panes.show(id), named: (titles) => panes.name(titles) }, panes);
    element.prepend(list.element);
  };
  return { element, start };
}
