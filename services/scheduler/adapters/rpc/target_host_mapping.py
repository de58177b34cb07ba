"""Target hosts between protos and the domain's values."""

from __future__ import annotations

from collections.abc import Mapping

from punctual.v1 import target_host_pb2 as pb

from libs.common.errors import InvalidArgumentError
from services.scheduler.adapters.rpc.times import to_instant, to_optional_timestamp
from services.scheduler.domain.target_host import CircuitState, HostObservation, TargetHost, check_host
from services.scheduler.usecases.caller import ORG_ID

_CIRCUITS: Mapping[CircuitState, pb.TargetHost.Circuit.ValueType] = {
    state: pb.TargetHost.Circuit.Value(f"CIRCUIT_{state.value}") for state in CircuitState
}
_STATES = {value: state for state, value in _CIRCUITS.items()}
MAX_REASON = 64


def from_target_host(host: TargetHost) -> pb.TargetHost:
    """Return the message of a host; one that no executor has seen has no circuit."""
    seen = host.observation
    return pb.TargetHost(
        org_id=host.org_id,
        host=host.host,
        max_requests_per_minute=host.limits.max_requests_per_minute,
        max_concurrent_requests=host.limits.max_concurrent_requests,
        circuit=_CIRCUITS[seen.circuit] if seen else pb.TargetHost.CIRCUIT_UNSPECIFIED,
        retry_time=to_optional_timestamp(seen.retry_time if seen else None),
        wait_reason=seen.wait_reason if seen else "",
        observe_time=to_optional_timestamp(seen.observe_time if seen else None),
        rate_limit_hit_count=seen.rate_limit_hit_count if seen else 0,
        reset_count=host.reset_count,
    )


def to_observed_host(message: pb.TargetHost) -> TargetHost:
    """Return what an executor saw of a host; limits in its report mean nothing.

    Raises:
        InvalidArgumentError: it names no org, host, circuit or time.
    """
    circuit = _STATES.get(message.circuit)
    if circuit is None:
        raise InvalidArgumentError.of("target_hosts.circuit", "UNKNOWN_ENUM_VALUE", "is not a known value")
    if not ORG_ID.fullmatch(message.org_id):
        raise InvalidArgumentError.of("target_hosts.org_id", "INVALID_ORG_ID", "is not an org")
    if not message.HasField("observe_time"):
        raise InvalidArgumentError.of("target_hosts.observe_time", "REQUIRED", "is required")
    retry_time = to_instant(message.retry_time, "target_hosts.retry_time") if message.HasField("retry_time") else None
    return TargetHost(
        org_id=message.org_id,
        host=check_host(message.host),
        reset_count=message.reset_count,
        observation=HostObservation(
            observe_time=to_instant(message.observe_time, "target_hosts.observe_time"),
            circuit=circuit,
            retry_time=retry_time,
            wait_reason=message.wait_reason[:MAX_REASON],
            rate_limit_hit_count=message.rate_limit_hit_count,
        ),
    )
