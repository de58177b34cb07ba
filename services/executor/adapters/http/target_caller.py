"""Makes an attempt's POST: builds it, follows what may be followed, reads the answer within bounds, tells what came
of it.

Redirects are followed here and not by aiohttp, because each hop is checked anew, secrets stay with their origin, and
only 307 and 308 are followed: the others would turn the POST into something else. Every failure is a result; only a
cancellation passes through, and leaves in `progress` what is certain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from libs.common.crash_points import crash_point
from services.executor.adapters.http.answer_body import Body, read_body
from services.executor.adapters.http.answer_packing import AnswerPacker
from services.executor.adapters.http.deadlines import Deadlines
from services.executor.adapters.http.exchange import Exchange, current_exchange
from services.executor.adapters.http.failures import CALL_ERRORS, failed_call, timed_out_call
from services.executor.adapters.http.response_checks import ResponseChecker
from services.executor.adapters.http.target_wire import TargetResponse, TargetWire
from services.executor.domain.answer import SHORT_BYTES, bounded_headers, readable
from services.executor.domain.attempt import Grant, TargetRequest
from services.executor.domain.rate_limit_headers import observe_rate_limit, retry_after_seconds
from services.executor.domain.report import CallProgress, CallResult, Result
from services.executor.domain.request_headers import (
    BadHeaderError,
    lines_for_any_origin,
    request_headers,
    user_headers,
)
from services.executor.domain.secret_mask import SecretMask
from services.executor.domain.target_url import BadUrlError, TargetUrl, parse_target_url, redirect_target
from services.executor.usecases.ports import Release, SchedulerClock, at_once

_GONE = 410
_STOP_HEADER = "punctual-stop"


@dataclass(slots=True)
class _Route:
    """Where a call is by now: the current address, the lines that may go there, and how it came to be there."""

    url: TargetUrl
    headers: list[tuple[str, str]]
    elsewhere: Callable[[], list[tuple[str, str]]]
    """Makes the lines that may leave the job's own origin."""
    redirects: int = 0
    stopped_by: str = ""
    """Why a redirect was not followed although it is of the kind that could be; a reason for the report."""


class HttpTargetCaller:
    """Implements `TargetCaller` over pooled connections."""

    def __init__(
        self,
        wire: TargetWire,
        deadlines: Deadlines,
        packer: AnswerPacker,
        checker: ResponseChecker,
        clock: SchedulerClock,
        *,
        user_agent: str,
    ) -> None:
        self._wire = wire
        self._deadlines = deadlines
        self._packer = packer
        self._checker = checker
        self._clock = clock
        self._user_agent = user_agent

    async def call(self, grant: Grant, progress: CallProgress, release: Release = at_once) -> CallResult:
        """Carry out the attempt's POST."""
        request = grant.request
        try:
            url, user = _checked_url(request.url), user_headers(request)
        except BadUrlError as error:
            return CallResult(Result.NOT_SENT, error_reason="BAD_URL", error_message=str(error))
        except BadHeaderError as error:
            return CallResult(Result.NOT_SENT, error_reason="BAD_HEADER", error_message=str(error))
        start = max(self._clock.now(), grant.due_time)
        route = _Route(
            url,
            request_headers(grant, user, start, self._user_agent),
            elsewhere=lambda: lines_for_any_origin(grant, user, start, self._user_agent),
        )
        mask = SecretMask(user)
        exchange = Exchange(
            progress,
            self._deadlines,
            release,
            grant.org_id,
            total=request.total_timeout,
            connect=request.connect_timeout,
            first_byte=request.first_byte_timeout,
        )
        current_exchange.set(exchange)
        try:
            with exchange.deadline:
                response = await self._post(request, route, exchange)
                body = await read_body(response, request.response_policy, mask)
        except CALL_ERRORS as error:
            if exchange.deadline.expired:
                return timed_out_call(exchange.phase, route.redirects)
            return failed_call(error, exchange.phase, route.redirects)
        return await self._answered(request, route, response, body, mask)

    async def _post(self, request: TargetRequest, route: _Route, exchange: Exchange) -> TargetResponse:
        """Send the POST to its last hop, and return the answer with its body still unread."""
        while True:
            exchange.dialling(route.url.host)
            response = await self._wire.post(route.url.text, route.headers, request.body, exchange)
            # If we die here the target has seen the request, and the outcome is unknown.
            crash_point("executor.posting")
            exchange.answering()
            if not _followed(route, response, request.max_redirects):
                return response
            response.release()

    async def _answered(
        self, request: TargetRequest, route: _Route, response: TargetResponse, body: Body, mask: SecretMask
    ) -> CallResult:
        """Return the result of a call with a whole answer (or as much of one as is kept)."""
        policy, status = request.response_policy, response.status
        lines = list(response.headers.items())
        told = {name.lower(): value for name, value in lines}
        now = self._clock.now()
        if mask.masks:
            lines = [(name, mask.text(value)) for name, value in lines]
        headers = bounded_headers(lines)
        try:
            failed = ""
            if policy.checks and policy.succeeds(status):
                failed = await self._checker.failed_check(policy.checks, body) or ""
            if not policy.store_full_response:
                body.cut(SHORT_BYTES)
            content_type = readable(mask.text(told.get("content-type", "")))
            answer = await self._packer.pack(headers, content_type, body)
        except BaseException:
            body.close()
            raise
        return CallResult(
            Result.ANSWERED,
            status_code=status,
            error_reason="CHECK_FAILED" if failed else route.stopped_by,
            error_message=failed,
            answer=answer,
            retry_after=retry_after_seconds(told, now),
            rate_limit=observe_rate_limit(told, now),
            redirect_count=route.redirects,
            stop_requested=status == _GONE or told.get(_STOP_HEADER, "").strip().lower() == "true",
        )


def _followed(route: _Route, response: TargetResponse, max_redirects: int) -> bool:
    """Move the route on if the response redirects to where the POST may follow; return whether it did."""
    try:
        target = redirect_target(route.url, response.status, response.headers.get("Location"))
    except BadUrlError:
        route.stopped_by = "BAD_REDIRECT"
        return False
    if target is None:
        return False
    if route.redirects >= max_redirects:
        route.stopped_by = "TOO_MANY_REDIRECTS"
        return False
    if target.origin != route.url.origin:
        route.headers = route.elsewhere()
    route.url = target
    route.redirects += 1
    return True


# Jobs fire again and again at few addresses; reading them each time would cost more than the rest of the preparation.
_checked_url = lru_cache(maxsize=1024)(parse_target_url)
