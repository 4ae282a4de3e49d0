// Lets a user sign in, and adds a form to each operation, made of what the page says of it.

// From …/docs/static/ to the root of the API, which may be below a prefix.
const ROOT = new URL("../../", import.meta.url);
// Of a reply; the rest is not shown.
const MAX_SHOWN = 200000;

// Only kept in memory.
let token = null;

/** Make an element: `h("button", {onclick}, "Send")`. Keys with `on` are listeners. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function authorization() {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

/** Ask the server whether it takes the token, or needs none; show that. */
async function check() {
  const access = document.getElementById("access");
  let text = "The server doesn't answer.";
  let needed = token !== null;
  try {
    const reply = await fetch(new URL("version", ROOT), { headers: authorization(), cache: "no-store" });
    needed ||= reply.status === 401;
    if (reply.ok) text = `procd ${(await reply.json()).version}. ${needed ? "Signed in." : "No token is needed."}`;
    else if (reply.status !== 401) text = `The server answers ${reply.status}.`;
    else text = token === null ? "A token is needed." : "That token is not valid.";
    if (!reply.ok) token = null;
  } catch {
    // It has gone, or the network has.
  }
  access.replaceChildren(h("span", { role: "status" }, text), " ");
  if (token !== null) {
    access.append(h("button", { type: "button", onclick: () => signInWith(null) }, "Sign out"));
  } else if (needed) {
    access.append(h("button", { type: "button", class: "main", onclick: askForToken }, "Sign in"));
  }
}

function signInWith(given) {
  token = given;
  return check();
}

function askForToken() {
  const input = h("input", { type: "password", autocomplete: "off", required: true });
  const dialog = h(
    "dialog",
    { "aria-label": "Sign in" },
    h(
      "form",
      { method: "dialog" },
      h("label", {}, "Token ", input),
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      " ",
      h("button", { type: "submit", class: "main", value: "ok" }, "Sign in"),
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "ok") signInWith(input.value.trim());
  });
  document.body.append(dialog);
  dialog.showModal();
}

/** The form of an operation: its parameters and body, with the examples of the page. */
function form(operation) {
  const { method, path, server, websocket } = operation.dataset;
  const rows = [...operation.querySelectorAll("tr[data-parameter]")];
  const inputs = rows.map((row) => {
    const { parameter, in: place, required } = row.dataset;
    const shown = row.querySelector("td:last-child code")?.textContent ?? '""';
    const example = String(JSON.parse(shown));
    const isNeeded = required !== undefined;
    const input = h("input", { value: isNeeded ? example : "", placeholder: example, required: isNeeded });
    return { name: parameter, place, input };
  });
  const example = operation.querySelector("pre.body")?.textContent;
  const body = example === undefined ? null : h("textarea", { rows: example.split("\n").length, spellcheck: "false", "aria-label": "Body" });
  if (body !== null) body.value = example;
  const result = h("div", { "aria-live": "polite" });
  const button = h("button", { type: "submit", class: "main" }, "Send");
  let sending = null;

  async function send(event) {
    event.preventDefault();
    if (sending !== null) {
      sending.abort();
      return;
    }
    sending = new AbortController();
    button.textContent = "Cancel";
    const url = new URL(fill(path, inputs).slice(1), new URL(server, ROOT));
    for (const { name, place, input } of inputs) {
      if (place === "query" && input.value !== "") url.searchParams.set(name, input.value);
    }
    const headers = { Accept: "application/json, */*", ...authorization() };
    if (body !== null) headers["Content-Type"] = "application/json";
    try {
      const options = { method: method.toUpperCase(), headers, body: body?.value, cache: "no-store", signal: sending.signal };
      result.replaceChildren(...(await shown(await fetch(url, options))));
    } catch (error) {
      result.replaceChildren(h("p", { class: "status bad" }, error.name === "AbortError" ? "Cancelled." : error.message));
    }
    sending = null;
    button.textContent = "Send";
  }

  return h(
    "form",
    { class: "try", onsubmit: send },
    h("h3", {}, "Try it"),
    ...inputs.map(({ name, input }) => h("label", {}, h("code", {}, name), input)),
    ...(body === null ? [] : [body]),
    ...(websocket === undefined ? [] : [h("p", {}, "This page doesn't open the WebSocket: it sends a plain GET.")]),
    button,
    result,
  );
}

function fill(path, inputs) {
  return path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(inputs.find((each) => each.name === name).input.value));
}

/** A reply as elements: status, headers, body. */
async function shown(reply) {
  let text = await reply.text();
  if (reply.headers.get("Content-Type")?.startsWith("application/json")) {
    try {
      text = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // It is cut short; shown as it is.
    }
  }
  if (text.length > MAX_SHOWN) text = `${text.slice(0, MAX_SHOWN)}\n… ${text.length - MAX_SHOWN} more characters`;
  const headers = [...reply.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  const parts = [
    h("p", { class: reply.ok ? "status" : "status bad" }, `${reply.status} ${reply.statusText}`),
    h("pre", { class: "headers" }, headers),
  ];
  if (text) parts.push(h("pre", { class: "reply" }, text));
  if (reply.status === 401) parts.push(h("button", { type: "button", onclick: askForToken }, "Sign in"));
  return parts;
}

for (const operation of document.querySelectorAll("details.operation")) {
  operation.addEventListener("toggle", () => {
    if (!operation.open || operation.querySelector(".try") !== null) return;
    const only = operation.dataset.websocket === "only";
    operation.append(only ? h("p", { class: "try" }, "This is a WebSocket, which this page doesn't open.") : form(operation));
  });
}

/** Open what a link leads to. */
function reveal() {
  const element = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (element?.tagName === "DETAILS") element.open = true;
  element?.scrollIntoView();
}

addEventListener("hashchange", reveal);
reveal();
check();
