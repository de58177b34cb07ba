"""The alerts and the dashboard against a real Prometheus, which scrapes the running system.

An expression over a metric that does not exist is silent forever. So every selector of every alert, and every query of
the dashboard, must find data while the system works through successes, failures, retries and limits; what finds none
by intent is named here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, ContentTypeError
from punctual.v1 import job_pb2, job_service_pb2
from pymongo import AsyncMongoClient

from tests.support.cluster import ORG, Cluster, open_api
from tests.support.load import create_burst, soon, wait_final
from tools.devstack.ports import free_ports
from tools.devstack.process import ChildProcess
from tools.devstack.waiting import wait_until

FOLDER = Path(os.environ["PROMETHEUS_FOLDER"])
MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
SELECTOR = re.compile(r"(punctual[a-z0-9_:]+)(\{[^}]*\})?")
RATE_INTERVAL = "20s"
SCRAPE_SECONDS = 1

EMPTY_BY_INTENT = {
    # No call fails by a defect.
    'punctual_rpc_handled_total{code=~"INTERNAL|UNKNOWN|DATA_LOSS"}',
    # Neither store fails.
    f'sum by (command) (rate(punctual_mongodb_operation_duration_seconds_count{{outcome="error"}}[{RATE_INTERVAL}]))',
    f'sum by (operation) (rate(punctual_redis_operation_duration_seconds_count{{outcome="error"}}[{RATE_INTERVAL}]))',
}
NOT_A_NUMBER_BY_INTENT = {
    # Quantiles of what did not happen: nothing was held back by a limit.
    f'histogram_quantile({q}, sum by (le) (rate(punctual_lag_seconds_bucket{{limited="true"}}[{RATE_INTERVAL}])))'
    for q in (0.5, 0.99)
}


class Prometheus:
    """A running Prometheus, as one asks it."""

    def __init__(self, session: ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def get(self, path: str, **params: str) -> Any:
        async with self._session.get(f"http://{self._address}{path}", params=params) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the samples of an expression at this moment."""
        data = await self.get("/api/v1/query", query=expression)
        samples: list[dict[str, Any]] = data["result"]
        return samples


@pytest.fixture
async def cluster(mongo_uri: str, mongo_database: str, redis_database: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(
        tmp_path, mongo_uri, mongo_database, redis_database, executors=2, PUNCTUAL_METRICS_ADDRESS="127.0.0.1:0"
    )
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def prometheus(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Prometheus]:
    (port,) = free_ports(1)
    config = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
        "rule_files": [str(MONITORING / "alerts.yaml")],
        "scrape_configs": [
            {"job_name": "punctual", "static_configs": [{"targets": list(metrics_addresses(cluster))}]},
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = ChildProcess(
        "prometheus",
        [
            str(FOLDER / "prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        output=tmp_path / "prometheus.log",
    )
    process.start()
    try:
        async with ClientSession() as session:
            prometheus = Prometheus(session, f"127.0.0.1:{port}")

            async def scraped() -> bool:
                try:
                    return len(await prometheus.query("up == 1")) == len(cluster.services)
                except (OSError, ContentTypeError):  # not listening, or not ready yet
                    return False

            await wait_until(scraped, seconds=30, what="all services scraped")
            yield prometheus
    finally:
        await process.stop(seconds=10)


def metrics_addresses(cluster: Cluster) -> Iterator[str]:
    """Yield where each service said that it serves its metrics."""
    for service in cluster.services:
        lines = [json.loads(line) for line in cluster.log(service).splitlines() if line.startswith("{")]
        yield f"127.0.0.1:{next(line['metrics_port'] for line in lines if line.get('metrics_port'))}"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    targets = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [expression.replace("$__rate_interval", RATE_INTERVAL) for expression in targets]


def promtool(*arguments: str, given: bytes | None = None) -> str:
    command = [FOLDER / "promtool", *arguments]
    done = subprocess.run(command, cwd=MONITORING, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


def test_promtool_finds_the_alerts_right() -> None:
    promtool("check", "rules", "alerts.yaml")
    promtool("test", "rules", "alerts_test.yaml", "alerts_slow_test.yaml")


def test_every_alert_is_tested_and_has_a_runbook() -> None:
    tested = (MONITORING / "alerts_test.yaml").read_text() + (MONITORING / "alerts_slow_test.yaml").read_text()
    headings = {line.removeprefix("## ") for line in RUNBOOKS.read_text().splitlines() if line.startswith("## ")}
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == headings
    for rule in alerts:
        assert f'alertname="{rule["alert"]}"' in tested
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in {"page", "ticket"}


async def test_every_expression_finds_what_it_asks_for(
    cluster: Cluster, prometheus: Prometheus, mongo_uri: str, mongo_database: str
) -> None:
    await _work(cluster, mongo_uri, mongo_database)
    completed = "sum(increase(punctual_executions_total[1m])) > 0 and sum(punctual_target_rate_limit_hits_total) > 0"

    async def seen() -> bool:
        return bool(await prometheus.query(completed))

    await wait_until(seen, seconds=30, what="the work in the metrics")
    await asyncio.sleep(2 * SCRAPE_SECONDS)  # two evaluations of rules over rules
    silent = []
    for expression in dashboard_queries():
        values = [sample["value"][1] for sample in await prometheus.query(expression)]
        known = expression in EMPTY_BY_INTENT | NOT_A_NUMBER_BY_INTENT
        if not known and not [value for value in values if value != "NaN"]:
            silent.append(expression)
    for rule in rules():
        for name, labels in SELECTOR.findall(rule["expr"]):
            selector = f"{name}{labels}"
            if not (selector in EMPTY_BY_INTENT or await prometheus.query(selector)):
                silent.append(selector)
    assert not silent, "\n".join(silent)
    evaluated = [rule for group in (await prometheus.get("/api/v1/rules"))["groups"] for rule in group["rules"]]
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in evaluated} == {
        (rule.get("alert") or rule["record"], "ok", "") for rule in rules()
    }
    pages = {rule["name"] for rule in evaluated if rule["type"] == "alerting" and rule["state"] == "firing"}
    # Ten answers of 429 are more than enough for a ticket; nothing wakes anybody.
    assert pages <= {"PunctualTargetsLimitUs"}
    for address in metrics_addresses(cluster):
        async with ClientSession() as session, session.get(f"http://{address}/metrics") as response:
            promtool("check", "metrics", given=await response.read())


async def _work(cluster: Cluster, mongo_uri: str, mongo_database: str) -> None:
    """Let executions succeed, fail, be tried again, be limited and be run by hand."""
    async with open_api(cluster) as api, AsyncMongoClient[dict[str, Any]](mongo_uri) as client:
        at = soon(3)
        created = await create_burst(api, cluster.target("ok"), 20, at)
        await create_burst(api, cluster.target("status/404"), 5, at)
        await create_burst(api, cluster.target("flaky/1", host="127.0.0.2"), 3, at)
        # Once each: the gate waits twice as long after each further 429, and by chance up to twice that.
        once = job_pb2.RetryPolicy(max_attempts=1)
        limited = await create_burst(api, cluster.target("status/429"), 3, soon(4), retry_policy=once)
        await wait_final(client[mongo_database], 28 + len(limited), seconds=60)
        await api.jobs.RunJob(
            job_service_pb2.RunJobRequest(job_id=created[0].job_id, allow_inactive=True), metadata=ORG
        )
