"""Settings: read once by a service's composition root, frozen, validated, and documented beside their defaults.

Every setting comes from an environment variable, `PUNCTUAL_` and the field's name in upper case. A usable default
exists for all but addresses and secrets. A wrong value stops the process before it connects anywhere: one line per
field, which names the variable and never repeats the value, since that may be a secret.
"""

from __future__ import annotations

import sys
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

ENV_PREFIX = "PUNCTUAL_"
EXIT_BAD_SETTINGS = 2


class ServiceSettings(BaseSettings):
    """What every service can be told. A service adds its own fields in a subclass."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="ignore")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The least severe log line that is written. Default INFO."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="`json`: one object a line; `console`: coloured, for people. Default json."
    )
    metrics_address: str = Field(
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


def load_settings(cls: type[S]) -> S:
    """Read the settings from the environment, or exit with code 2 and a line per wrong variable on stderr."""
    try:
        return cls()
    except ValidationError as error:
        lines = [
            f"{_env_name(cls, item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    except SettingsError as error:
        lines = [str(error)]
    sys.stderr.write("".join(f"settings: {line}\n" for line in lines))
    raise SystemExit(EXIT_BAD_SETTINGS)


def _env_name(cls: type[BaseSettings], loc: tuple[int | str, ...]) -> str:
    """Return the variable that a refused value came from; a rule over several fields has none, and names the class."""
    if not loc:
        return cls.__name__
    prefix = cls.model_config.get("env_prefix", "")
    return f"{prefix}{loc[0]}".upper()
