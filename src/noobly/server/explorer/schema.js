// JSON Schemas, as people read them.
import { el, prose } from "./page.js";

let root = {};
export const use = (document) => { root = document; };

export function resolve(schema) {
  return schema.$ref ? resolve(schema.$ref.split("/").slice(1).reduce((at, name) => at[name], root)) : schema;
}

/** Returns a schema without the choice of null, which a form expresses by leaving the field empty. */
export function present(schema) {
  const kinds = schema.anyOf?.filter((one) => one.type !== "null");
  return resolve(kinds?.length === 1 ? { ...schema, anyOf: undefined, ...kinds[0] } : schema);
}

export function typeText(schema) {
  const found = resolve(schema);
  if (found.anyOf) return found.anyOf.map(typeText).join(" or ");
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (found.type === "array") return `array of ${typeText(found.items ?? {})}`;
  if (found.properties) return found.title ?? "object";
  if (found.additionalProperties) return `object of ${typeText(found.additionalProperties)}`;
  return found.type ?? "any value";
}

/** Returns a value of a schema as JSON text, with what it must have. */
export const sample = (schema) => JSON.stringify(made(present(schema)), null, 1).replace(/\s+/g, " ");

function made(found) {
  if (found.enum) return found.enum[0];
  if (found.type === "array") return found.items?.properties || found.items?.$ref ? [made(present(found.items))] : [];
  if (found.properties) return Object.fromEntries((found.required ?? []).map((name) => [name, made(present(found.properties[name]))]));
  return { string: "", integer: 0, number: 0, boolean: false }[found.type] ?? { name: "Ada" };
}

/** Draws a schema and those it consists of. */
export function tree(schema, above = []) {
  const found = resolve(schema);
  const inner = found.anyOf ?? [found.items, found.additionalProperties];
  const parts = inner.filter((one) => one && typeof one === "object").map((one) => tree(one, above));
  if (!found.properties || above.includes(found)) return parts;
  const members = Object.entries(found.properties).map(([name, member]) => el("li", {},
    el("code", {}, name), " ", el("span", { class: "type" }, typeText(member)),
    member.description && el("span", { class: "quiet" }, " — ", prose(member.description)),
    tree(member, [...above, found])));
  return [el("ul", { class: "schema" }, members), ...parts];
}
