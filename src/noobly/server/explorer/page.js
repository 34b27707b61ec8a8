// What the pages share: making elements, the API key, and calling the server.

/** Makes an element. Children are elements or text, and text is never read as HTML. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else if (value != null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((child) => child != null && child !== false));
  return made;
}

/** Makes text with `code` between backticks. */
export const prose = (text) => text.split("`").map((part, place) => (place % 2 ? el("code", {}, part) : part));

/** The key lives in this input alone: not in storage, not in the URL. */
export const key = document.querySelector("#key");

/** The server's address, wherever it is mounted. */
export const base = new URL(".", location);

export function call(url, { method, headers, body } = {}) {
  const sent = new Headers(headers);
  if (key.value) sent.set("x-api-key", key.value);
  return fetch(new URL(url, base), { method, headers: sent, body, cache: "no-store" });
}

/** Says what went wrong, from a problem document (RFC 9457) or from whatever else came. */
export function fault(status, text) {
  let problem = { detail: text.slice(0, 300) };
  try {
    problem = JSON.parse(text) ?? problem;
  } catch {
    // It is plain text, and shown as it is.
  }
  return shown(problem.title ?? `The server answered ${status}`, problem.detail || "It did not say why.",
    status === 401 && "Enter an API key at the top of the page.",
    problem.temporary && "Trying again may help.");
}

export const unreachable = (error) => shown("No answer", `The request could not be made: ${error.message}`);

const shown = (title, ...words) => el("div", { class: "fault", role: "alert" },
  el("strong", {}, title), words.filter(Boolean).map((text) => el("p", {}, text)));

/** Returns what the server says as JSON; where it refuses, shows why in a place and returns nothing. */
export async function ask(url, place) {
  try {
    const response = await call(url);
    const text = await response.text();
    if (response.ok) return JSON.parse(text);
    place.replaceChildren(fault(response.status, text));
  } catch (error) {
    place.replaceChildren(unreachable(error));
  }
  return undefined;
}
