// A worker of Node's BullMQ: node worker.cjs REDIS_URL PREFIX QUEUE [OPTIONS AS JSON]. Tells each thing in one line of JSON.
const { Worker, UnrecoverableError } = require("bullmq");
const [url, prefix, queue, options] = process.argv.slice(2);
const { hostname, port, pathname } = new URL(url);
const connection = { host: hostname, port: Number(port || 6379), db: Number(pathname.slice(1) || 0) };
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

const tasks = {
  add: async (job) => job.data.a + job.data.b,
  echo: async (job) => job.data,
  report: async (job) => {
    await job.updateProgress({ percent: 50 });
    await job.log("from node");
    return "reported";
  },
  flaky: async (job) => {
    if (job.attemptsMade < 2) throw new Error(`attempt ${job.attemptsMade + 1}`);
    return job.attemptsMade;
  },
  hopeless: async () => {
    throw new UnrecoverableError("no use");
  },
  slow: async () => new Promise((done) => setTimeout(done, 1500)),
  total: async (job) => Object.values(await job.getChildrenValues()).reduce((sum, part) => sum + part, 0),
};

const worker = new Worker(
  queue,
  async (job) => {
    tell({
      name: job.name, id: job.id, data: job.data, priority: job.opts.priority, attempt: job.attemptsMade + 1,
      telemetry: job.opts.telemetry?.metadata, own: job.opts.noobly,
    });
    return tasks[job.name](job);
  },
  { connection, prefix, ...JSON.parse(options || "{}") },
);
worker.on("error", (error) => tell({ error: String(error) }));
worker.waitUntilReady().then(() => tell({ ready: true }));
process.on("SIGTERM", () => worker.close().then(() => process.exit(0)));
