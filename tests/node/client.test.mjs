// The main job by a client of another language: create, fire on the dot, watch, read the answer, and be refused well.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { openPunctual } from "./punctual.mjs";

const { PUNCTUAL_ADDRESS, TARGET_URL, PROTO_ROOTS } = process.env;
const punctual = openPunctual(PUNCTUAL_ADDRESS, "node", PROTO_ROOTS.split(":"));
after(() => punctual.close());

const millis = ({ seconds, nanos }) => Number(seconds) * 1000 + nanos / 1e6;
const timestamp = (at) => ({ seconds: String(Math.floor(at / 1000)), nanos: (at % 1000) * 1e6 });

function oneTimeJob(at) {
  return {
    name: "from Node",
    schedule: { one_time: { instant: timestamp(at) } },
    target: { url: TARGET_URL, prompt: "Are you there?" },
  };
}

async function finalState(watch) {
  for await (const { execution } of watch) {
    // Without an execution the message is a sign of life.
    if (execution && !["STATE_READY", "STATE_RUNNING"].includes(execution.state)) {
      watch.cancel();
      return execution;
    }
  }
  throw new Error("the watch ended without a final state");
}

test("a job created from Node fires on the dot, once, and its execution can be read", async () => {
  const due = Date.now() + 3_000;
  const request = { job: oneTimeJob(due), idempotency_key: `node-${due}` };
  const { job, next_fires } = await punctual.job("createJob", request);
  assert.equal(job.state, "STATE_ACTIVE");
  assert.equal(next_fires.length, 1);
  const repeated = await punctual.job("createJob", request);
  assert.equal(repeated.replayed, true);
  assert.equal(repeated.job.job_id, job.job_id);

  const watch = punctual.watch({ job_id: job.job_id });
  watch.on("error", () => {}); // cancelled by us in the end
  const { execution_id } = await finalState(watch);
  const execution = await punctual.execution("getExecution", { execution_id });
  assert.equal(execution.state, "STATE_SUCCEEDED");
  assert.equal(execution.response.status_code, 200);
  assert.match(execution.response.body.toString(), new RegExp(execution_id));
  assert.equal(millis(execution.due_time), due);
  assert.ok(millis(execution.start_time) >= due, "never early");

  const listed = await punctual.execution("listExecutions", { job_id: job.job_id });
  assert.deepEqual(listed.executions.map((item) => item.execution_id), [execution_id]);
  assert.equal((await punctual.job("getJob", { job_id: job.job_id })).state, "STATE_COMPLETED");
});

test("an error names the field and the reason", async () => {
  const job = { ...oneTimeJob(0), schedule: { daily: { time: "25:00" } } };
  const request = { job };
  const error = await punctual.job("createJob", request).then(assert.fail, (refused) => refused);
  assert.equal(error.code, 3, "INVALID_ARGUMENT");
  const found = punctual.details(error);
  const fields = found.filter((item) => item.name === "google.rpc.BadRequest").flatMap((item) => item.field_violations);
  assert.deepEqual(fields.map((item) => item.field).sort(), ["job.schedule.daily.time"]);
  assert.equal(found.filter((item) => item.name === "google.rpc.ErrorInfo").length, 1);
});

test("what another org owns is not there", async () => {
  const { job } = await punctual.job("createJob", { job: oneTimeJob(Date.now() + 3_600_000) });
  const other = openPunctual(PUNCTUAL_ADDRESS, "somebody-else", PROTO_ROOTS.split(":"));
  const error = await other.job("getJob", { job_id: job.job_id }).then(assert.fail, (refused) => refused);
  other.close();
  assert.equal(error.code, 5, "NOT_FOUND");
});
