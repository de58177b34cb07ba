"""Settings: read once by a service's composition root, frozen, validated, and documented beside their defaults.

Every setting comes from an environment variable, `PUNCTUAL_` and the field's name in upper case. A usable default
exists for all but addresses and secrets. A wrong value stops the process before it connects anywhere: one line per
field, which names the variable and never repeats the value, since that may be a secret. `--check-config` on a service's
command line stops there when nothing is wrong, too: what a rollout can ask before it begins. docs/settings.md is
generated from the fields.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

ENV_PREFIX = "PUNCTUAL_"
EXIT_BAD_SETTINGS = 2
_TARGET_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:")


def _is_address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("must be host:port, with a port of 0-65535")
    return value


def _is_address_or_empty(value: str) -> str:
    return value and _is_address(value)


def _is_target(value: str) -> str:
    return value if value.startswith(_TARGET_SCHEMES) else _is_address(value)


Address = Annotated[str, AfterValidator(_is_address)]
"""Where a server listens."""

OptionalAddress = Annotated[str, AfterValidator(_is_address_or_empty)]
"""Where a server listens, or empty for nowhere."""

PeerAddress = Annotated[str, AfterValidator(_is_target)]
"""Where a server is called: host:port, or a gRPC target with its scheme."""


class ServiceSettings(BaseSettings):
    """What every service can be told. A service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least severe log line that is written. Default INFO."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="`json`: one object a line; `console`: coloured, for people. Default json."
    )
    metrics_address: OptionalAddress = Field(
        default="127.0.0.1:0",
        description="Where /metrics is served, host:port; port 0: a free one, empty: nowhere. Default 127.0.0.1:0.",
    )
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        le=3600,
        description="How long a process may take to hand back its work after SIGTERM, seconds, 0-3600. Default 20.",
    )


S = TypeVar("S", bound=BaseSettings)


def start_settings(cls: type[S], program: str, arguments: Sequence[str] | None = None) -> S:
    """Read a service's command line and settings; with --check-config, say that they are good, and exit with code 0."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", epilog="All settings: docs/settings.md")
    parser.add_argument(
        "--check-config", action="store_true", help="check the settings, show those that are set, and start nothing"
    )
    options = parser.parse_args(arguments)
    settings = load_settings(cls)
    if options.check_config:
        sys.stdout.write("".join(f"{line}\n" for line in _report(settings)))
        raise SystemExit(0)
    return settings


def load_settings(cls: type[S]) -> S:
    """Read the settings from the environment, or exit with code 2 and a line per wrong variable on stderr."""
    try:
        return cls()
    except ValidationError as error:
        lines = [
            _sentence(cls, item["loc"], item["type"], item["msg"])
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    except SettingsError as error:
        lines = [str(error)]
    sys.stderr.write("".join(f"settings: {line}\n" for line in lines))
    raise SystemExit(EXIT_BAD_SETTINGS)


def _sentence(cls: type[BaseSettings], loc: tuple[int | str, ...], kind: str, message: str) -> str:
    """Say what is wrong with a variable; a rule over several of them names them itself."""
    message = "must be set" if kind == "missing" else message.removeprefix("Value error, ")
    return f"{_variable(cls, str(loc[0]))}: {message}" if loc else message


def _variable(cls: type[BaseSettings], field: str) -> str:
    return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def _report(settings: BaseSettings) -> list[str]:
    """Return what is set, secrets masked, and what looks like a setting and is none, which a misspelt one does."""
    cls = type(settings)
    known = {_variable(cls, field): field for field in cls.model_fields}
    given = [f"{name}={getattr(settings, known[name])}" for name in sorted(known) if name in os.environ]
    strange = sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known)
    return [*given, *(f"{name} is no setting of this service and has no effect" for name in strange), "settings: good"]
