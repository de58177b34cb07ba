"""The client: one connection, one attribute per service of the API."""

from __future__ import annotations

from typing import Self

from grpc import aio

from libs.client.api_keys import ApiKeys
from libs.client.audit import Audit
from libs.client.calls import DEFAULT_DEADLINE_SECONDS, Calls, Metadata
from libs.client.credentials import Credentials
from libs.client.executions import Executions
from libs.client.jobs import Jobs
from libs.client.org import Org
from libs.client.retry_policy import RetryPolicy
from libs.client.signing_secrets import SigningSecrets
from libs.client.target_hosts import TargetHosts
from libs.client.transport import Tls, channel_credentials
from libs.common.clock import Clock, SystemClock
from libs.common.rpc.client import open_channel

ORG_KEY = "x-punctual-org"


class PunctualServices:
    """The services of the API over one connection, all with the same deadline."""

    def __init__(self, channel: aio.Channel, calls: Calls) -> None:
        self._channel = channel
        self._calls = calls
        self.jobs = Jobs(channel, calls)
        self.executions = Executions(channel, calls)
        self.audit = Audit(channel, calls)
        self.api_keys = ApiKeys(channel, calls)
        self.signing_secrets = SigningSecrets(channel, calls)
        self.target_hosts = TargetHosts(channel, calls)
        self.org = Org(channel, calls)

    def with_deadline(self, seconds: float) -> PunctualServices:
        """Return the same services, on the same connection, with another deadline for each call."""
        return PunctualServices(self._channel, self._calls.with_deadline(seconds))


class PunctualClient(PunctualServices):
    """A connection to Punctual, made inside a running event loop and closed by leaving `async with`.

    `address` is `host:port` (its addresses take turns) or a gRPC target. `credentials` say who calls. `org` names the
    org in development mode, where no credentials are needed, and for operators, who may act for any. `tls` is
    described at `channel_credentials`: by default plaintext stays on this machine. `deadline_seconds` bounds each call
    with all its retries. Opening connects nothing; a server that is not there shows on the first call.

    Raises:
        ValueError: `org` has characters that no org has, and that metadata could not carry.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Credentials | None = None,
        org: str = "",
        tls: Tls | bool | None = None,
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
        retry_policy: RetryPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not (org.isascii() and org.isprintable()):
            raise ValueError(f"{org!r} is no org: it has characters that no org has")
        self._credentials = credentials
        self._org = org
        channel = open_channel(address, credentials=channel_credentials(address, tls))
        calls = Calls(
            self._metadata, clock or SystemClock(), retry_policy or RetryPolicy(), deadline_seconds=deadline_seconds
        )
        super().__init__(channel, calls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls in progress are cancelled."""
        await self._channel.close()

    def _metadata(self) -> Metadata:
        org = ((ORG_KEY, self._org),) if self._org else ()
        if self._credentials is None:
            return org
        return (*org, ("authorization", f"Bearer {self._credentials.token()}"))
