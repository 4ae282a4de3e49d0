// Makes elements without HTML text: no text of a program or another user is parsed as markup.

/** Make an element: `h("button", {type: "button", onclick}, "New")`. Keys with `on` are listeners. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the label and title of an element. */
export function name(element, label) {
  if (element.title === label) return;
  element.setAttribute("aria-label", label);
  element.title = label;
}

/** A button with a text, or with an icon and a `label`. */
export function button(text, onclick, { label, ...attributes } = {}) {
  return h("button", { type: "button", onclick, "aria-label": label, title: label, ...attributes }, text);
}
