"""The main job, shown through the public API: a job fires on the dot and its answer is stored.

Creates a one-time job a few seconds ahead and, once per target, a job that fires every minute; then prints each
execution as it ends: fire time, lag, state, HTTP status and stored answer. Talks to any Punctual in development mode:

    python -m tools.devstack.demo --address 127.0.0.1:7400 --target http://127.0.0.1:7410/v1/echo [--once]

With `--once` it ends with code 0 after the one-time job's answer, or with 1 when that has not come in time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from punctual.v1 import execution_pb2, execution_service_pb2, job_pb2, job_service_pb2, schedule_pb2
from punctual.v1.execution_service_pb2_grpc import ExecutionServiceStub
from punctual.v1.job_service_pb2_grpc import JobServiceStub

from tools.devstack.process import LineSink

if TYPE_CHECKING:  # These exist in the type stubs only.
    from punctual.v1.execution_service_pb2_grpc import ExecutionServiceAsyncStub
    from punctual.v1.job_service_pb2_grpc import JobServiceAsyncStub

METADATA = (("x-punctual-org", "demo"),)
PROJECT = "demo"
AHEAD = timedelta(seconds=5)
READY_SECONDS = 60.0
ANSWER_SECONDS = 60.0
CALL_SECONDS = 10.0
POLL_SECONDS = 0.25
SHOWN_ANSWER_BYTES = 500

State = execution_pb2.Execution.State
FINAL_STATES = [state for state in State.values() if state >= execution_pb2.Execution.STATE_SUCCEEDED]


async def run_demo(address: str, target: str, say: LineSink, *, once: bool) -> int:
    """Show the main job through the API at `address` with POSTs to the URL `target`.

    Returns 1 when it did not work, and with `once` 0 after the one-time job's answer; else it shows executions for
    good.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        demo = Demo(JobServiceStub(channel), ExecutionServiceStub(channel), target, say)
        try:
            async with asyncio.timeout(READY_SECONDS):
                await demo.wait_ready()
            since = datetime.now(UTC)
            recurring = await demo.create_recurring_job()
            job = await demo.create_one_time_job()
            async with asyncio.timeout(ANSWER_SECONDS) as limit:
                async for execution in demo.ended_executions(since):
                    say(describe(execution))
                    if execution.job_id != job.job_id:
                        continue
                    for line in commands(address, target, recurring.job_id, execution.execution_id):
                        say(line)
                    if once:
                        return 0 if execution.state == execution_pb2.Execution.STATE_SUCCEEDED else 1
                    limit.reschedule(None)
        except TimeoutError:
            say("the demo failed: nothing came in time; the services' lines say why")
        except grpc.aio.AioRpcError as error:
            say(f"the demo failed: {error.code().name}: {error.details()}")
    return 1


class Demo:
    """The steps of the demo, as a caller of the public API."""

    def __init__(
        self, jobs: JobServiceAsyncStub, executions: ExecutionServiceAsyncStub, target: str, say: LineSink
    ) -> None:
        self._jobs = jobs
        self._executions = executions
        self._target = target
        self._say = say

    async def wait_ready(self) -> None:
        """Return when the API answers; without a limit of its own."""
        while True:
            try:
                await self._jobs.ListJobs(
                    job_service_pb2.ListJobsRequest(page_size=1), metadata=METADATA, timeout=CALL_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    async def create_one_time_job(self) -> job_pb2.Job:
        """Create a job that fires once, a few seconds from now."""
        instant = Timestamp()
        instant.FromDatetime(datetime.now(UTC) + AHEAD)
        schedule = schedule_pb2.Schedule(one_time=schedule_pb2.OneTimeRule(instant=instant))
        job = await self._create("Demo, once", "What is the time?", schedule, key=f"demo-{uuid.uuid4()}")
        self._say(f"created one-time job {job.job_id}, to fire at {text_of(instant)}")
        return job

    async def create_recurring_job(self) -> job_pb2.Job:
        """Create the job that fires every minute, or find it where it exists."""
        schedule = schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression="* * * * *"))
        # The same key on every start: the job is created once and found again.
        job = await self._create("Demo, every minute", "Say hello.", schedule, key=f"demo-recurring-{self._target}")
        self._say(f"recurring job {job.job_id} fires every minute, next at {text_of(job.next_fire_time)}")
        return job

    async def _create(self, name: str, prompt: str, schedule: schedule_pb2.Schedule, *, key: str) -> job_pb2.Job:
        job = job_pb2.Job(
            project_id=PROJECT,
            name=name,
            schedule=schedule,
            target=job_pb2.Target(url=self._target, prompt=prompt),
        )
        request = job_service_pb2.CreateJobRequest(job=job, idempotency_key=key, allow_duplicate=True)
        response = await self._jobs.CreateJob(request, metadata=METADATA, timeout=CALL_SECONDS)
        return response.job

    async def ended_executions(self, since: datetime) -> AsyncIterator[execution_pb2.Execution]:
        """Yield executions that reached a final state, each once, with its answer; outlasts a service's restart."""
        request = execution_service_pb2.ListExecutionsRequest(project_id=PROJECT, states=FINAL_STATES)
        request.fire_after.FromDatetime(since)
        shown: set[str] = set()
        while True:
            try:
                page = await self._executions.ListExecutions(request, metadata=METADATA, timeout=CALL_SECONDS)
                listed = [execution.execution_id for execution in reversed(page.executions)]
                for execution_id in listed:
                    if execution_id not in shown:
                        wanted = execution_service_pb2.GetExecutionRequest(execution_id=execution_id)
                        yield await self._executions.GetExecution(wanted, metadata=METADATA, timeout=CALL_SECONDS)
                        shown.add(execution_id)
                # What fell off the page of the latest does not come back.
                shown.intersection_update(listed)
            except grpc.aio.AioRpcError as error:
                if not is_passing(error):
                    raise
            await asyncio.sleep(POLL_SECONDS)


def commands(address: str, target: str, job_id: str, execution_id: str) -> list[str]:
    """Return the lines with which to try the API by hand."""
    curl = ".venv/bin/buf curl --protocol grpc --http2-prior-knowledge -H 'x-punctual-org: demo'"
    grpcurl = "grpcurl -plaintext -H 'x-punctual-org: demo'"
    job = {
        "name": "Mondays",
        "schedule": {"cron": {"expression": "0 9 * * mon"}, "time_zone": "Europe/Berlin"},
        "target": {"url": target, "prompt": "Plan the week."},
    }
    calls: list[tuple[str, dict[str, object]]] = [
        ("JobService/CreateJob", {"job": job}),
        ("JobService/PreviewSchedule", {"schedule": job["schedule"]}),
        ("JobService/RunJob", {"job_id": job_id}),
        ("ExecutionService/ListExecutions", {"job_id": job_id}),
        ("ExecutionService/GetExecution", {"execution_id": execution_id}),
    ]
    return [
        "try it by hand, in another terminal:",
        f"  {curl} --list-services http://{address}",
        *(f"  {curl} -d '{json.dumps(body)}' http://{address}/punctual.v1.{method}" for method, body in calls),
        f"  {grpcurl} {address} list",
        *(f"  {grpcurl} -d '{json.dumps(body)}' {address} punctual.v1.{method}" for method, body in calls[-2:]),
    ]


def is_passing(error: grpc.aio.AioRpcError) -> bool:
    """Say whether a call failed only because a service was starting or restarting."""
    return error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def describe(execution: execution_pb2.Execution) -> str:
    """Return the line that shows an ended execution."""
    state = State.Name(execution.state).removeprefix("STATE_")
    parts = [f"fired {text_of(execution.fire_time)}", f"lag {milliseconds(execution.lag)}", state]
    if execution.state_reason:
        parts.append(execution.state_reason)
    if execution.response.status_code:
        body = execution.response.body[:SHOWN_ANSWER_BYTES].decode(errors="replace")
        parts += [f"HTTP {execution.response.status_code}", body]
    elif execution.attempts:
        parts.append(execution.attempts[-1].error_message)
    return "  ".join(parts)


def text_of(instant: Timestamp) -> str:
    """Return an instant as UTC text with milliseconds."""
    return instant.ToDatetime(UTC).isoformat(timespec="milliseconds")


def milliseconds(span: Duration) -> str:
    """Return a span as text."""
    return f"{span.ToMicroseconds() / 1000:.1f} ms"


def print_line(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def main() -> int:
    """Run the demo against a running Punctual; return the exit code."""
    parser = argparse.ArgumentParser(description="Shows a job that fires on the dot, through the public API.")
    parser.add_argument("--address", default="127.0.0.1:7400", help="the public API's host:port")
    parser.add_argument("--target", default="http://127.0.0.1:7410/v1/echo", help="the URL to POST to")
    parser.add_argument("--once", action="store_true", help="end after the one-time job's answer")
    arguments = parser.parse_args()
    try:
        return asyncio.run(run_demo(arguments.address, arguments.target, print_line, once=arguments.once))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
