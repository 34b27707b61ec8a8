// The inputs of an operation's form, made of schemas.
import { el, prose } from "./page.js";
import { present, sample, tree, typeText } from "./schema.js";

export const JSON_TYPE = "application/json";
const RAW_TYPE = "application/octet-stream";

/** Makes an input; `json()` gives its value as JSON text, and nothing where it is empty. */
export function field({ name, where, schema, required = false, description = schema.description ?? "" }, make = maker) {
  const found = present(schema);
  const { input, note, type = typeText(found), json = () => input.value || undefined, check } = make(found)(found);
  const id = `${where}-${name}`;
  const set = { id, required, spellcheck: "false", autocomplete: "off", "aria-describedby": `${id}-about` };
  for (const [attribute, value] of Object.entries(set)) if (value) input.setAttribute(attribute, value);
  const node = el("div", { class: "field" },
    el("label", { for: id }, el("code", {}, name), required && el("small", { class: "quiet" }, " required")),
    input, note,
    el("p", { id: `${id}-about`, class: "quiet" }, el("span", { class: "type" }, type), " ", prose(description)), members(found));
  return { name, where, required, node, input, json, check };
}

function members(schema) {
  const drawn = tree(schema).flat(Infinity);
  return drawn.length > 0 && el("details", {}, el("summary", {}, "Its members"), drawn);
}

/** Returns an input's value as the texts that a query, path or header carries. */
export function texts({ json }) {
  const value = json();
  if (value === undefined) return [];
  return '"['.includes(value[0]) ? [JSON.parse(value)].flat().map(String) : [value];
}

function maker(schema) {
  if (schema.enum || schema.type === "boolean") return choice;
  if (schema.type === "integer" || schema.type === "number") return number;
  if (schema.type === "string") return text;
  return schema.type === "array" && present(schema.items ?? {}).type === "string" ? lines : value;
}

function text(schema) {
  const input = el("input", { placeholder: schema.default });
  return { input, json: () => (input.value ? JSON.stringify(input.value) : undefined) };
}

function number({ type, default: placeholder, minimum: min, maximum: max }) {
  const input = el("input", { type: "number", step: type === "integer" ? 1 : "any", placeholder, min, max });
  const written = (typed) => String(/^-?\d+$/.test(typed) ? BigInt(typed) : Number(typed));
  return { input, json: () => (input.value ? written(input.value) : undefined) };
}

function choice({ enum: values = [true, false], default: preset }) {
  const options = values.map((one) => el("option", { value: JSON.stringify(one) }, String(one)));
  return { input: el("select", {}, el("option", { value: "" }, preset === undefined ? "" : `${preset} (default)`), options) };
}

function lines() {
  const input = el("textarea", { rows: 2 });
  const read = () => input.value.split("\n").filter(Boolean);
  return { input, type: "texts, one per line", json: () => (read().length ? JSON.stringify(read()) : undefined) };
}

function value(schema) {
  const input = el("textarea", { rows: 4, placeholder: sample(schema), class: "mono" });
  const note = el("p", { class: "bad", role: "status" });
  const check = (wanted = true) => {
    note.textContent = wanted ? complaint(input.value.trim(), schema.type) : "";
    input.setCustomValidity(note.textContent);
  };
  input.addEventListener("input", () => check());
  return { input, note, check, type: `JSON, ${typeText(schema)}`, json: () => input.value.trim() || undefined };
}

function complaint(typed, type) {
  const first = { object: "{", array: "[" }[type];
  try {
    if (typed) JSON.parse(typed);
    return typed && first && typed[0] !== first ? `This must be a JSON ${type}.` : "";
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
}

/** Makes the input of a body that is one value: JSON, or text that is sent as it is. */
export function whole({ content, required }) {
  const schema = content[JSON_TYPE]?.schema ?? {};
  const made = field({ name: "body", where: "body", schema, required }, () => value);
  const kinds = [JSON_TYPE, RAW_TYPE].filter((kind) => kind in content);
  const select = el("select", { id: "body-kind" }, kinds.map((kind) => el("option", {}, kind)));
  const settle = () => made.check(select.value === JSON_TYPE);
  for (const each of [select, made.input]) each.addEventListener("input", settle);
  const choose = kinds.length > 1 && [el("label", { for: "body-kind" }, "Sent as"), select];
  return { ...made, kind: () => select.value, node: el("div", { class: "field" }, choose, made.node) };
}
