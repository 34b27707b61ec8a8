import { ask, el, key } from "./page.js";

const place = document.querySelector("#services");

async function show() {
  const services = await ask("v1", place);
  const health = services && (await ask("health", place));
  if (!health) return;
  const rows = services.flatMap(({ service, instances }) => instances.map((one) => row(service, one, health)));
  const heads = ["Service", "Instance", "Provider", "State"].map((text) => el("th", { scope: "col" }, text));
  place.replaceChildren(
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, rows))));
}

function row(service, { instance, provider }, health) {
  const found = health.find((one) => one.service === service && one.instance === instance);
  const spent = found ? `${(found.seconds * 1000).toFixed(2)} ms` : "";
  const described = instance === "default" ? `${service}_describe` : `${service}_describe__${instance}`;
  const link = el("a", { href: `explorer#${described}` }, service);
  return el("tr", {}, el("th", { scope: "row" }, link), el("td", {}, instance), el("td", {}, el("code", {}, provider)),
    el("td", {}, el("span", { class: `state ${found?.state}` }, found?.state ?? "unknown"),
      " ", el("span", { class: "quiet" }, found?.error ?? spent)));
}

key.addEventListener("change", show);
show();
