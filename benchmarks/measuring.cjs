// prom-client behind standard input: "counter 1000" does so many and answers with a line.
const { Counter, Histogram, Registry } = require("prom-client");
const readline = require("node:readline");

const registry = new Registry();
const registers = [registry];
const labelNames = ["method", "route", "status"];
const counter = new Counter({ name: "requests_total", help: "Requests.", labelNames, registers });
const bound = counter.labels("GET", "/users", "200");
const histogram = new Histogram({
  name: "took_seconds", help: "Took.", labelNames: ["method", "route"], registers,
  buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
});
const large = new Registry();
const series = new Counter({ name: "series_total", help: "Series.", labelNames: ["a", "b"], registers: [large] });
for (let n = 0; n < 10000; n++) series.labels(`a${n % 100}`, `b${n}`).inc(n);

const works = {
  labelled: () => counter.labels("GET", "/users", "200").inc(),
  bound: () => bound.inc(),
  observe: () => histogram.labels("GET", "/users").observe(0.02),
};

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  const [name, count] = line.split(" ");
  if (name === "render") for (let n = 0; n < Number(count); n++) await large.metrics();
  else for (let n = 0; n < Number(count); n++) works[name]();
  process.stdout.write("done\n");
});
process.stdout.write("ready\n");
