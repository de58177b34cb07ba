"""The gate of the public port: no handler runs before its caller is known and allowed.

It stands in front of all services, so none can forget it, and it knows every method by name: what is neither in the
table nor open to all is refused. What a caller may see of the data is not decided here but in every query's `OrgScope`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import grpc
from grpc.aio import ServerInterceptor

from libs.common.errors import PermissionDeniedError
from libs.common.rpc.interceptors import current_request_id
from libs.common.rpc.surround import Context, Handler, guard
from services.scheduler.adapters.rpc.authentication import Authenticator, EstablishedCaller
from services.scheduler.adapters.rpc.method_rules import OPEN_METHODS, PUBLIC_RULES, MethodRule
from services.scheduler.usecases.caller import Caller


class AdmissionInterceptor(ServerInterceptor):
    """Authenticates and authorizes each call. Goes inside the ErrorInterceptor, which makes the status of a refusal."""

    def __init__(self, authenticator: Authenticator, rules: Mapping[str, MethodRule] = PUBLIC_RULES) -> None:
        self._authenticator = authenticator
        self._rules = rules

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler behind the gate; an unknown method has none."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method in OPEN_METHODS:
            return handler
        return guard(handler, partial(self._admit, method))

    async def _admit(self, method: str, context: Context) -> None:
        caller = await self._authenticator.authenticate(context)
        name = method.rpartition(".")[2].replace("/", ".")
        rule = self._rules.get(method)

        async def readmit() -> None:
            _check(await self._authenticator.authenticate(context), name, rule)

        caller = replace(caller, peer=context.peer(), request_id=current_request_id(), method=name)
        # Before the check: whoever is refused is known by then, and the audit says so.
        EstablishedCaller.establish(caller, readmit)
        _check(caller, name, rule)


def _check(caller: Caller, name: str, rule: MethodRule | None) -> None:
    if rule is None:
        raise PermissionDeniedError("METHOD_NOT_OPEN", f"{name} is open to nobody", metadata={"method": name})
    if not any(caller.may(permission) for permission in rule.any_of):
        scopes = " or ".join(sorted(rule.any_of))
        raise PermissionDeniedError(
            "SCOPE_REQUIRED", f"{name} needs the scope {scopes}", metadata={"method": name, "scopes": scopes}
        )
    if rule.whole_org and caller.scope.project_ids is not None:
        raise PermissionDeniedError(
            "WHOLE_ORG_REQUIRED",
            f"{name} concerns the whole org, and the credential covers some of its projects only",
            metadata={"method": name},
        )
