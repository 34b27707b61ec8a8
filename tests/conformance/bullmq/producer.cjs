// A producer of Node's BullMQ: node producer.cjs REDIS_URL PREFIX QUEUE JOBS. JOBS is a JSON list of {name, data, opts} or
// {flow}. Waits for the end of each and tells it in one line of JSON.
const { Queue, QueueEvents, FlowProducer, Job } = require("bullmq");
const [url, prefix, queue, jobs] = process.argv.slice(2);
const { hostname, port, pathname } = new URL(url);
const connection = { host: hostname, port: Number(port || 6379), db: Number(pathname.slice(1) || 0) };
const tell = (line) => process.stdout.write(JSON.stringify(line) + "\n");

(async () => {
  const queues = new Queue(queue, { connection, prefix });
  const events = new QueueEvents(queue, { connection, prefix });
  const flows = new FlowProducer({ connection, prefix });
  await events.waitUntilReady();
  const progress = {};
  events.on("progress", ({ jobId, data }) => (progress[jobId] = data));
  const added = [];
  for (const { flow, name, data, opts } of JSON.parse(jobs))
    added.push(flow ? (await flows.add(flow)).job : await queues.add(name, data, opts));
  for (const job of added) {
    let result, error;
    try {
      result = await job.waitUntilFinished(events, 30000);
    } catch (failure) {
      error = failure.message;
    }
    const last = await Job.fromId(queues, job.id);
    const logs = await queues.getJobLogs(job.id);
    tell({
      id: job.id, name: job.name, result, error, state: await last.getState(), attempts: last.attemptsMade,
      progress: progress[job.id], logs: logs.logs,
    });
  }
  await Promise.all([events.close(), flows.close(), queues.close()]);
})();
