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
      if (list === null) return;
      list.draw();
      remember(panes.open);
    },
  });
  const show = (id) => panes.show(id);
  list = new PtyList({ show, named: (titles) => panes.name(titles) }, panes);
  const wanted = location.hash.slice(1).split("&").filter(Boolean).map(decodeURIComponent);
  const start = () => {
    wanted.forEach(show); // before the list: what is wanted is to be there first
    list.follow();
  };
  return { element: h("div", { class: "page" }, list.element, panes.element), start };
}
