// BullMQ in Node: node on_node.cjs add URL COUNT SPACING | work URL COUNT, with NODE_PATH naming its node_modules.
"use strict";

const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const TASKS = 50;
const [role, url, count, spacing] = process.argv.slice(2);
// A pipe takes 64 KiB at once, so the process may end only when all is written.
const say = (what, then) => process.stdout.write(JSON.stringify(what) + "\n", then);
const end = () => process.exit(0);
const now = () => (performance.timeOrigin + performance.now()) / 1000;
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
const spent = (since) => {
  const used = process.cpuUsage(since);
  return (used.user + used.system) / 1e6;
};

async function add() {
  const queue = new Queue("bench", { connection: new Redis(url, { maxRetriesPerRequest: null }) });
  await queue.waitUntilReady();
  const [began, cpu] = [now(), process.cpuUsage()];
  if (Number(spacing)) {
    for (let done = 0; done < Number(count); done++) {
      await queue.add("noop", now());
      await pause(Number(spacing));
    }
  } else {
    const some = async () => {
      for (let done = 0; done < Number(count) / TASKS; done++) await queue.add("noop", now());
    };
    await Promise.all(Array.from({ length: TASKS }, some));
  }
  say({ seconds: now() - began, cpu: spent(cpu) }, end);
}

async function work() {
  const late = [];
  let began, cpu;
  const noop = async (job) => {
    if (!late.length) [began, cpu] = [now(), process.cpuUsage()];
    late.push(now() - job.data);
    if (late.length < Number(count)) return;
    say({ seconds: now() - began, cpu: spent(cpu), late }, end);
  };
  const worker = new Worker("bench", noop, {
    connection: new Redis(url, { maxRetriesPerRequest: null }),
    concurrency: 50,
  });
  await worker.waitUntilReady();
  setTimeout(() => say({ ready: true }), 1000);
}

(role === "add" ? add : work)();
