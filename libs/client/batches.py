"""Cuts a long row of jobs into calls that the server takes: by count, and by bytes, since prompts may be large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from punctual.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest

from libs.common.ids import new_id

MAX_REQUESTS = 1000
MAX_BYTES = 3 * 1024 * 1024
"""Well below the server's limit of 4 MiB a message."""


def batches(requests: Iterable[CreateJobRequest]) -> Iterator[BatchCreateJobsRequest]:
    """Yield the calls, in order; requests without an idempotency key get a fresh one."""
    batch = BatchCreateJobsRequest()
    size = 0
    for request in requests:
        item_size = request.ByteSize()
        if batch.requests and (len(batch.requests) == MAX_REQUESTS or size + item_size > MAX_BYTES):
            yield batch
            batch, size = BatchCreateJobsRequest(), 0
        item = batch.requests.add()
        item.CopyFrom(request)
        item.idempotency_key = request.idempotency_key or new_id()
        size += item_size
    if batch.requests:
        yield batch
