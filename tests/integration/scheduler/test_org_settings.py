"""UpdateOrgSettings over the wire: which fields a request changes."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from punctual.v1.org_pb2 import OrgSettings
from punctual.v1.org_service_pb2 import UpdateOrgSettingsRequest
from punctual.v1.org_service_pb2_grpc import OrgServiceStub

from tests.support.served_scheduler import ORG, ServedScheduler

URL = "https://hooks.example.com/jobs"


@pytest.mark.parametrize("mask", [None, FieldMask(), FieldMask(paths=["job_failed_callback_url"])])
async def test_without_paths_the_populated_fields_change(api: ServedScheduler, mask: FieldMask | None) -> None:
    request = UpdateOrgSettingsRequest(org_settings=OrgSettings(job_failed_callback_url=URL), update_mask=mask)
    answer = await OrgServiceStub(api.channel).UpdateOrgSettings(request, metadata=ORG)
    assert answer.job_failed_callback_url == URL
    assert answer.max_jobs > 0
