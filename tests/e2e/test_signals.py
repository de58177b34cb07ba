"""What the whole system tells of itself while it runs: one trace from the caller to the POST, and one line a try."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from punctual.v1 import execution_service_pb2, job_pb2, job_service_pb2, schedule_pb2
from pymongo.asynchronous.database import AsyncDatabase

from tests.e2e.conftest import StartCluster
from tests.support.cluster import ORG, open_api
from tests.support.load import one_time_job, soon, wait_final
from tests.support.otlp_collector import running_collector, tree
from tools.devstack.ports import free_ports

CALLER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = (*ORG, ("traceparent", f"00-{CALLER_TRACE}-00f067aa0ba902b7-01"))
CANARY = "canary-5d41402abc4b"


@asynccontextmanager
async def listening_target() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Serve a target; yields its address and the headers of the requests that came."""
    seen: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}/?key={CANARY}", seen
    finally:
        await runner.cleanup()


async def test_one_trace_leads_from_the_caller_to_the_post_and_one_line_tells_of_it(
    start_cluster: StartCluster, database: AsyncDatabase[dict[str, Any]], tmp_path: Path
) -> None:
    async with running_collector() as collector, listening_target() as (target, seen):
        cluster = await start_cluster(
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{collector.address}",
            OTEL_EXPORTER_OTLP_INSECURE="true",
            OTEL_BSP_SCHEDULE_DELAY="100",
        )
        async with open_api(cluster) as api:
            once = one_time_job("once", target, soon(1.5))
            once.target.headers.append(job_pb2.Header(name="Authorization", value=CANARY))
            every = one_time_job("every", target, soon(0))
            every.schedule.CopyFrom(schedule_pb2.Schedule(cron=schedule_pb2.CronRule(expression="0 0 1 1 *")))
            for job in (once, every):
                created = await api.jobs.CreateJob(job_service_pb2.CreateJobRequest(job=job), metadata=CALLER)
            # Instead of waiting for the next year.
            at = {"next_fire_time": soon(1), "next_due_time": soon(1)}
            await database.jobs.update_one({"_id": created.job.job_id}, {"$set": at})
            await wait_final(database, 2)
            named = {"acquire", "dispatch", "begin", "wait", "POST", "report"}
            await collector.wait_for(
                {*named, "punctual.v1.JobService/CreateJob"}, lambda span: span.trace_id == CALLER_TRACE
            )
            await collector.wait_for(named, lambda span: span.trace_id != CALLER_TRACE)
            found = await api.executions.ListExecutions(
                execution_service_pb2.ListExecutionsRequest(trace_id=CALLER_TRACE), metadata=ORG
            )
    spans = collector.trace(CALLER_TRACE)
    if report := os.environ.get("TRACE_REPORT"):
        Path(report).write_text(tree(spans) + "\n")
    by_name = {span.name: span for span in spans}
    acquire, post = by_name["acquire"], by_name["POST"]
    creates = {span.span_id for span in spans if span.name.endswith("/CreateJob")}
    assert acquire.parent_id in creates
    assert {by_name[name].parent_id for name in named - {"acquire"}} == {acquire.span_id}
    assert [span.service for span in (acquire, by_name["dispatch"], post)] == [
        "punctual-scheduler",
        "punctual-dispatcher",
        "punctual-executor",
    ]
    assert by_name["begin"].end_nanos <= by_name["wait"].end_nanos <= post.start_nanos + 1
    assert post.end_nanos <= by_name["report"].start_nanos
    # The target continues the trace from the POST; the execution is found by it, and only that one.
    traceparents = {headers["traceparent"] for headers in seen}
    assert f"00-{CALLER_TRACE}-{post.span_id}-01" in traceparents
    assert [execution.trace_id for execution in found.executions] == [CALLER_TRACE]
    # A recurring job's fires have traces of their own, which link the call that created it.
    (own,) = (span for span in collector.spans if span.name == "acquire" and span.trace_id != CALLER_TRACE)
    assert (own.links, own.parent_id) == ((CALLER_TRACE,), "")
    assert not [request for request in collector.raw if CANARY.encode() in request]
    _check_logs(cluster.log(cluster.executors[0]), found.executions[0].execution_id)


def _check_logs(text: str, execution_id: str) -> None:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    (line,) = (line for line in lines if line["event"] == "attempt.concluded" and line["execution_id"] == execution_id)
    told = {name: line[name] for name in ("level", "service", "result", "status_code", "trace_id", "org_id")}
    assert told == {
        "level": "info",
        "service": "executor",
        "result": "ANSWERED",
        "status_code": 200,
        "trace_id": CALLER_TRACE,
        "org_id": "acme",
    }
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC
    assert CANARY not in text
