// Shows a cell's value in the richest of its forms.
import { h } from "./dom.js";

// HTML of the user's code runs no scripts and loads nothing: its frame has no permissions, and the page's
// policy applies to it, too.
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

/** An element that shows a MIME bundle. */
export function shownBundle(data) {
  for (const [kind, show] of FORMS) {
    if (typeof data[kind] === "string") return show(data[kind]);
  }
  return h("pre", { tabindex: 0 }, JSON.stringify(data, null, 2));
}
