import { ask, base, call, el, fault, key, prose, unreachable } from "./page.js";
import { JSON_TYPE, field, texts, whole } from "./fields.js";
import { curl, hex, layOut, python } from "./text.js";
import { resolve, tree, typeText, use } from "./schema.js";

const [main, list, search] = ["#operation", "#operations", "#search"].map((id) => document.querySelector(id));
const MOST = 200_000;
const LISTENED = 5_000;
let operations = [];

async function start() {
  const found = await ask("openapi.json", main);
  if (!found) return;
  use(found);
  operations = Object.entries(found.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => ({ ...one, path, method: method.toUpperCase() })));
  list.replaceChildren(...[...new Set(operations.map(group))].map((name) => {
    const members = operations.filter((one) => group(one) === name).map(entry);
    return el("details", {}, el("summary", {}, name, el("span", { class: "count" }, members.length)), el("ul", {}, members));
  }));
  show();
}

const group = (one) => [one.tags[0], one["x-noobly-instance"]].filter(Boolean).join(" · ");
const verb = (one) => el("span", { class: `verb ${one.method.toLowerCase()}` }, one.method);
const entry = (one) => el("li", {},
  el("a", { href: `#${one.operationId}`, title: one.summary, class: one.deprecated && "old" }, verb(one), spoken(one)));

function spoken(one) {
  if (one["x-noobly-call"]) return one["x-noobly-call"].method.split(".").at(-1);
  return one["x-noobly-instance"] ? "describe" : one.path.replace("/services", "");
}

/** Shows the operation that the address names. */
function show() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const one = operations.find((each) => each.operationId === wanted) ?? operations[0];
  for (const link of list.querySelectorAll("a")) {
    const here = link.hash === `#${one.operationId}`;
    link.toggleAttribute("aria-current", here);
    if (here) link.closest("details").open = true;
  }
  main.replaceChildren(...heading(one), ...tryout(one), el("h2", {}, "Answers"), answers(one));
  main.scrollTo(0, 0);
}

const heading = (one) => [
  el("p", { class: "route" }, verb(one), el("code", {}, one.path),
    [one["x-noobly-scope"], one.deprecated && "deprecated"].map((text) => text && el("span", { class: "chip" }, text))),
  el("h1", {}, spoken(one)),
  ...[one.summary, ...(one.description ?? "").split("\n\n")].filter(Boolean).map((part) => el("p", {}, prose(part))),
];

function tryout(one) {
  const fields = inputs(one);
  const samples = el("div", { class: "pair" });
  const answer = el("section", { "aria-label": "Answer", "aria-live": "polite" });
  const button = el("button", { class: "send" }, "Send");
  const input = () => samples.replaceChildren(...examples(one, fields));
  const submit = async (event) => {
    event.preventDefault();
    button.disabled = true;
    answer.replaceChildren(...(await send(prepared(one, fields))));
    button.disabled = false;
  };
  const keydown = ({ key: pressed, ctrlKey, metaKey, currentTarget }) =>
    pressed === "Enter" && (ctrlKey || metaKey) && currentTarget.requestSubmit();
  input();
  return [el("form", { submit, input, keydown }, fields.map((each) => each.node), button), answer, samples];
}

/** Makes the inputs of an operation, what it needs first. */
function inputs({ parameters = [], requestBody }) {
  const schema = resolve(requestBody?.content[JSON_TYPE]?.schema ?? {});
  const members = Object.entries(schema.properties ?? {}).map(([name, member]) =>
    field({ name, where: "member", schema: member, required: schema.required.includes(name) }));
  const made = [...members, ...parameters.map(resolve).map((each) => field({ ...each, where: each.in }))];
  if (requestBody && !schema.properties) made.push(whole(requestBody));
  return made.sort((one, other) => other.required - one.required);
}

/** Makes the request that the form stands for. */
function prepared(one, fields) {
  let path = one.path;
  let body;
  const headers = {};
  const members = [];
  const query = new URLSearchParams();
  for (const each of fields) {
    if (each.where === "path") path = path.replace(`{${each.name}}`, encodeURIComponent(texts(each)[0] ?? ""));
    if (each.where === "query") texts(each).forEach((text) => query.append(each.name, text));
    if (each.where === "header" && each.json()) headers[each.name] = texts(each)[0];
    if (each.where === "member" && each.json()) members.push(`${JSON.stringify(each.name)}: ${each.json()}`);
    if (each.where === "body") body = each.input.value || undefined;
  }
  if (fields.some((each) => each.where === "member")) body = `{${members.join(", ")}}`;
  if (body) headers["content-type"] = fields.find((each) => each.kind)?.kind() ?? JSON_TYPE;
  const url = new URL(`.${path}`, base);
  url.search = query;
  return { method: one.method, url: url.href, headers, body, guarded: one.security?.length !== 0 };
}

function examples(one, fields) {
  const invoked = one["x-noobly-call"];
  return [block("curl", curl(prepared(one, fields))), invoked ? block("Python", invocation(invoked, fields)) : ""];
}

/** Writes the operation as a call in Python. */
function invocation({ method, positional = [], body, streams }, fields) {
  const given = fields.filter((each) => each.where !== "header");
  const values = new Map(given.map((each) => [each.where === "body" ? body : each.name, expression(each)]));
  const first = positional.map((name) => values.get(name) ?? "...");
  const named = [...values].filter(([name, value]) => value && !positional.includes(name));
  const called = `${method}(${[...first, ...named.map(([name, value]) => `${name}=${value}`)].join(", ")})`;
  return streams ? `async for item in ${called}:\n    print(item)` : `await ${called}`;
}

function expression({ input, json, kind }) {
  if (kind && kind() !== JSON_TYPE) return `${JSON.stringify(input.value)}.encode()`;
  return json() && python(json());
}

function block(name, text) {
  const click = () => navigator.clipboard.writeText(text);
  return el("section", { class: "code" },
    navigator.clipboard && el("button", { type: "button", click, "aria-label": `Copy as ${name}` }, "Copy"),
    el("h2", {}, name), el("pre", { tabindex: 0 }, text));
}

async function send(request) {
  const began = performance.now();
  try {
    const response = await call(request.url, request);
    const bytes = await received(response);
    return answered(response, bytes, performance.now() - began);
  } catch (error) {
    return [unreachable(error)];
  }
}

/** Reads an answer; of a stream, which may have no end, what comes within some seconds. */
async function received(response) {
  if (!response.headers.get("content-type")?.startsWith("text/event-stream")) return new Uint8Array(await response.arrayBuffer());
  const reader = response.body.getReader();
  setTimeout(() => reader.cancel(), LISTENED);
  const pieces = [];
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) pieces.push(piece.value);
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

function answered(response, bytes, spent) {
  const rows = [...response.headers].map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  const text = new TextDecoder().decode(bytes);
  const status = el("strong", { class: response.ok ? "good" : "bad" }, `${response.status} ${response.statusText}`);
  return [
    el("p", { class: "result" }, status, el("span", {}, `${spent.toFixed(1)} ms`), el("span", {}, `${bytes.length} bytes`)),
    response.ok ? "" : fault(response.status, text),
    el("pre", { tabindex: 0, "aria-label": "Body" }, readable(response.headers.get("content-type") ?? "", bytes, text)),
    el("details", {}, el("summary", {}, "Headers"), el("dl", {}, rows)),
  ];
}

function readable(type, bytes, text) {
  if (!text) return "no body";
  if (text.length > MOST) return `${text.slice(0, MOST)}\n… ${text.length - MOST} more characters`;
  if (/[/+]json/.test(type)) return layOut(text).map(([kind, part]) => (kind ? el("span", { class: kind }, part) : part));
  return type.startsWith("text/") ? text : hex(bytes);
}

/** Describes what may come back. */
const answers = (one) => el("ul", { class: "answers" }, Object.entries(one.responses).map(([status, given]) => {
  const found = resolve(given);
  const schema = found.content?.[JSON_TYPE]?.schema;
  return el("li", {}, el("strong", {}, status), " ", prose(found.description),
    schema && [el("span", { class: "type" }, ` ${typeText(schema)}`), tree(schema)]);
}));

function filter() {
  const words = search.value.toLowerCase().split(" ");
  for (const details of list.children) {
    const items = [...details.querySelectorAll("li")];
    for (const item of items) {
      const text = `${details.firstChild.textContent} ${item.textContent} ${item.firstChild.title} ${item.firstChild.hash}`.toLowerCase();
      item.hidden = !words.every((word) => text.includes(word));
    }
    details.hidden = items.every((item) => item.hidden);
    details.open = Boolean(search.value || details.querySelector("[aria-current]"));
  }
}

search.addEventListener("input", filter);
key.addEventListener("change", () => operations.length || start());
addEventListener("hashchange", () => {
  if (location.hash === "#operation") return;
  show();
  main.focus();
});
addEventListener("keydown", (event) => {
  if (event.key !== "/" || /INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) return;
  event.preventDefault();
  search.focus();
});
start();
