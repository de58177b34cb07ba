"""The metrics endpoint: serves, and can be stopped."""

import urllib.request

import pytest

from libs.common.metrics import Metrics


def test_endpoint_serves_the_registry_and_stops() -> None:
    metrics = Metrics()
    metrics.counter("examples_total", "Examples.", ["kind"]).labels("a").inc(3)
    metrics.gauge("held", "Held.").set(2)
    metrics.histogram("lag_seconds", "Lag.", buckets=(0.1, 1)).observe(0.05)
    endpoint = metrics.serve("127.0.0.1:0")
    assert endpoint is not None
    address = f"http://127.0.0.1:{endpoint.port}/metrics"
    with urllib.request.urlopen(address) as answer:
        text = answer.read().decode()
    assert 'punctual_examples_total{kind="a"} 3.0' in text
    assert 'punctual_lag_seconds_bucket{le="0.1"} 1.0' in text
    endpoint.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(address)


def test_empty_address_serves_nothing() -> None:
    assert Metrics().serve("") is None


def test_two_registries_do_not_share_names() -> None:
    Metrics().counter("examples_total", "Examples.")
    Metrics().counter("examples_total", "Examples.")
