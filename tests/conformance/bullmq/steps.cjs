// Steers a queue with Node's BullMQ: node steps.cjs REDIS_URL PREFIX QUEUE STEPS. STEPS is a JSON list of [method, ...arguments]
// of the queue, or of [{job: id}, method, ...arguments] of a job. Tells what each gave in one line of JSON.
const { Queue, Job } = require("bullmq");
const [url, prefix, queue, steps] = process.argv.slice(2);
const { hostname, port, pathname } = new URL(url);
const connection = { host: hostname, port: Number(port || 6379), db: Number(pathname.slice(1) || 0) };
const plain = (found) => (found instanceof Job ? { ...found.asJSON(), failedReason: found.failedReason } : found);

(async () => {
  const queues = new Queue(queue, { connection, prefix });
  for (const [first, ...rest] of JSON.parse(steps)) {
    const on = first.job ? await Job.fromId(queues, first.job) : queues;
    const [method, ...given] = first.job ? rest : [first, ...rest];
    const found = await on[method](...given);
    const line = Array.isArray(found) ? found.map(plain) : plain(found);
    process.stdout.write(JSON.stringify(line === undefined ? null : line) + "\n");
  }
  await queues.close();
})();
