"""Knows which calls may be made twice: the protos say so, by method option or by an idempotency key in the request.

Each RPC of the public API has a request message of its own, so a request tells its method.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from punctual.v1 import (
    api_key_service_pb2,
    audit_service_pb2,
    execution_service_pb2,
    job_service_pb2,
    org_service_pb2,
    signing_secret_service_pb2,
    target_host_service_pb2,
)
from punctual.v1.job_service_pb2 import BatchCreateJobsRequest

PUBLIC_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service
    for file in (
        job_service_pb2,
        execution_service_pb2,
        audit_service_pb2,
        api_key_service_pb2,
        signing_secret_service_pb2,
        target_host_service_pb2,
        org_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


def _idempotency_level(method: MethodDescriptor) -> int:
    options = MethodOptions()
    options.CopyFrom(method.GetOptions())
    return options.idempotency_level


_LEVELS: Mapping[str, int] = MappingProxyType(
    {
        method.input_type.full_name: _idempotency_level(method)
        for service in PUBLIC_SERVICES
        for method in service.methods
    }
)


def is_repeatable(request: Message) -> bool:
    """Say whether the call with this request has the same effect when it is made twice."""
    if _LEVELS[request.DESCRIPTOR.full_name] != MethodOptions.IDEMPOTENCY_UNKNOWN:
        return True
    if isinstance(request, BatchCreateJobsRequest):
        return all(item.idempotency_key for item in request.requests)
    return bool(getattr(request, "idempotency_key", ""))
