// The lists at the left. Their rows follow what there is by key, so that what somebody is about to
// press, or reads with a screen reader, isn't exchanged under their hands.
import { button, h, name } from "./dom.js";
import { icon } from "./icons.js";

export class Rows {
  #rows = new Map();

  /**
   * `show(item)` is what pressing an item's name does. `acts` are [sign, label, act(item)].
   * `describe(item)` says {id, name, full, facts, open, shown, over, bad, lacks}: its name, and a longer
   * one if others may have the same; whether it is open, and is what is shown; whether it can no longer be; what its facts are about is bad; labels of acts that
   * it lacks.
   */
  constructor(list, { show, acts, describe }) {
    this.list = list;
    this.show = show;
    this.acts = acts;
    this.describe = describe;
  }

  /** Show these, in this order: [[key, item]]. */
  draw(items) {
    const listed = new Map(items);
    for (const key of this.#rows.keys()) {
      if (!listed.has(key)) this.#remove(key);
    }
    let place = this.list.firstElementChild;
    for (const [key, item] of listed) {
      if (!this.#rows.has(key)) this.#rows.set(key, this.#made());
      const { element, draw } = this.#rows.get(key);
      draw(item);
      if (element === place) place = place.nextElementSibling;
      else this.list.insertBefore(element, place);
    }
  }

  #made() {
    let item = null; // as listed last
    const show = button("", () => this.show(item), { class: "name" });
    const acts = this.acts.map(([sign, label, act]) => [
      label,
      button(icon(sign), () => act(item), { class: "sign" }),
    ]);
    const facts = h("span", { class: "facts" });
    const element = h("li", {}, show, acts.map(([, each]) => each), facts);
    const draw = (listed) => {
      item = listed;
      const row = this.describe(item);
      element.dataset.id = row.id;
      element.classList.toggle("here", row.open ?? row.shown);
      if (show.title !== row.name) {
        show.textContent = row.name;
        show.title = row.name;
      }
      show.disabled = row.over ?? false;
      show.setAttribute("aria-current", String(row.shown));
      for (const [label, each] of acts) {
        name(each, `${label} ${row.full ?? row.name}`);
        each.hidden = row.lacks?.includes(label) ?? false;
      }
      facts.textContent = row.facts;
      facts.classList.toggle("bad", row.bad ?? false);
    };
    return { element, draw };
  }

  #remove(key) {
    const { element } = this.#rows.get(key);
    const near = element.nextElementSibling ?? element.previousElementSibling;
    const focused = element.contains(document.activeElement);
    element.remove();
    this.#rows.delete(key);
    if (focused) near?.querySelector("button")?.focus();
  }
}
