// Modal dialogs of the browser, which handles focus and Escape.
import { h } from "./dom.js";

/**
 * Ask for the values of fields; resolves with an object, in which that of a checkbox is true or false,
 * or with null if the user cancels.
 * `fields` are [name, label, attributes of the input].
 */
export function ask(title, fields, { text = "", action = "OK" } = {}) {
  return new Promise((resolve) => {
    const inputs = fields.map(([name, label, attributes]) => {
      const kind = attributes?.rows ? "textarea" : "input";
      return [name, label, h(kind, { name, autocomplete: "off", spellcheck: "false", ...attributes })];
    });
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", {}, title),
      text ? h("p", {}, text) : null,
      inputs.map(([, label, input]) => h("label", {}, label, input)),
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
        h("button", { type: "submit", value: "ok", class: "main" }, action),
      ),
    );
    const dialog = h("dialog", { "aria-label": title }, form);
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue !== "ok") resolve(null);
      else resolve(Object.fromEntries(inputs.map(([name, , input]) => [name, input.type === "checkbox" ? input.checked : input.value])));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Ask for a confirmation; resolves with true or false. */
export async function confirmed(title, text, action) {
  return (await ask(title, [], { text, action })) !== null;
}

/** Show a message for a few seconds. */
export function notify(text) {
  const note = h("p", { role: "alert", class: "notice" }, text);
  document.body.append(note);
  setTimeout(() => note.remove(), 6000);
}

/** Call an async function; if it throws, show the message and return null. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    notify(error.message);
    return null;
  }
}
