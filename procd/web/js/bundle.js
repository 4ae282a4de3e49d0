// What a cell's value looks like: the richest of the forms that it offers.
import { h } from "./dom.js";

// HTML of the user's code runs nothing and reaches nothing: its frame has no rights at all, and the
// page's policy holds in it, too.
function frame(html) {
  return h("iframe", { sandbox: "", srcdoc: html, title: "HTML result" });
}

function picture(kind, data) {
  const encoded = kind === "image/svg+xml" ? `,${encodeURIComponent(data)}` : `;base64,${data.replace(/\s/g, "")}`;
  return h("img", { src: `data:${kind}${encoded}`, alt: "Picture result" });
}

const FORMS = [
  ["text/html", (data) => frame(data)],
  ["image/svg+xml", (data) => picture("image/svg+xml", data)],
  ["image/png", (data) => picture("image/png", data)],
  ["image/jpeg", (data) => picture("image/jpeg", data)],
  ["text/plain", (data) => h("pre", { tabindex: 0 }, data)],
];

/** An element that shows a bundle of MIME types. */
export function shownBundle(data) {
  for (const [kind, show] of FORMS) {
    if (typeof data[kind] === "string") return show(data[kind]);
  }
  return h("pre", { tabindex: 0 }, JSON.stringify(data, null, 2));
}
