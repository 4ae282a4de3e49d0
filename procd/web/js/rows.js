// The lists at the left. Rows are updated by key, so that a row that the user is about to press, or that a
// screen reader reads, isn't replaced.
import { button, h, name } from "./dom.js";
import { icon } from "./icons.js";

export class Rows {
  #rows = new Map();

  /**
   * `show(item)` is called when an item's name is pressed. `acts` are [icon, label, act(item)].
   * `describe(item)` returns {id, name, full, facts, open, shown, over, bad, lacks}: its name, and a
   * longer one if others may have the same; whether it is open, is the one that is shown, can't be
   * shown any more; whether its facts are bad news; labels of acts that it lacks.
   */
  constructor(list, { show, acts, describe }) {
    this.list = list;
    this.show = show;
    this.acts = acts;
    this.describe = describe;
  }

  /** Show these items in this order: [[key, item]]. */
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
    let item = null; // as it was listed last
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
