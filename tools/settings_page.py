"""Writes docs/settings.md from the settings' classes, or proves with `--check` that it is up to date.

What the code knows is taken from the code: name, default, range and, by the ending of the name, the unit. The rest is
each field's description, without the sentence that repeats its default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from libs.common.rpc.tls import InternalTlsSettings
from libs.common.settings import ENV_PREFIX, ServiceSettings
from services.dispatcher.settings import DispatcherSettings
from services.executor.settings import ExecutorSettings
from services.scheduler.access_settings import AccessSettings
from services.scheduler.safeguard_settings import SafeguardSettings
from services.scheduler.settings import SchedulerSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "settings.md"

HEAD = """\
# Settings

Generated from the code by `make docs`; a change here is overwritten, and a test compares.

Every setting is an environment variable. A wrong value stops the start with exit code 2 and a line that names the
variable and not its value. `python -m services.scheduler --check-config` (and so for `services.dispatcher` and
`services.executor`) checks the environment, shows what is set with secrets masked, names variables that begin with
`PUNCTUAL_` and are no setting, and starts nothing. It exits with 0 or 2.

A range in round brackets excludes its end. Lists are separated by commas; yes and no are `true` and `false`. TLS files
are read while the settings are, so a missing one is a wrong setting too.
"""

TAIL = """\
## Traces

OpenTelemetry's own variables, the same in all services. Without one of the first three nothing is traced.

| variable | meaning |
|---|---|
| `OTEL_EXPORTER_OTLP_ENDPOINT` | The collector's OTLP/gRPC address, `http://host:4317`. |
| `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | The same for traces only. |
| `OTEL_TRACES_EXPORTER` | `otlp`, or `none` to trace nothing whatever the others say. |
| `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | Which are kept: `parentbased_traceidratio`, `0.01`. |
| `OTEL_SERVICE_NAME` | The name under which spans come; by default `punctual-scheduler` and so on. |
| `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_BSP_SCHEDULE_DELAY` and the like | How the SDK batches spans. |
| `OTEL_SDK_DISABLED` | `true` traces nothing whatever the others say. |

## For tests only

`PUNCTUAL_CRASH_POINT` names a place in the code at which the process ends as if by power cut
([architecture.md](architecture.md#crash-windows)). Leave it unset.
"""

SECTIONS: tuple[tuple[str, type[ServiceSettings], type[ServiceSettings] | None], ...] = (
    ("Every service", ServiceSettings, None),
    ("Mutual TLS among the services: every service", InternalTlsSettings, ServiceSettings),
    ("Scheduler: who may call, and how", AccessSettings, InternalTlsSettings),
    ("Scheduler: secrets, audit, quotas", SafeguardSettings, AccessSettings),
    ("Scheduler: the rest", SchedulerSettings, SafeguardSettings),
    ("Dispatcher", DispatcherSettings, InternalTlsSettings),
    ("Executor", ExecutorSettings, InternalTlsSettings),
)

UNITS = {
    "_seconds": "s",
    "_days": "d",
    "_bytes": "bytes",
    "_percent": "%",
    "_per_minute": "a minute",
}


@dataclass(frozen=True)
class Setting:
    """One row of the page."""

    variable: str
    default: str
    allowed: str
    meaning: str

    def row(self) -> str:
        """Return the row in Markdown."""
        cells = (f"`{self.variable}`", self.default, self.allowed, self.meaning)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main() -> int:
    """Write or check, by the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when the page is out of date")
    arguments = parser.parse_args()
    text = page()
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if arguments.check:
        print("out of date: docs/settings.md\nRun `make docs` and commit the result.")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print("docs/settings.md: written")
    return 0


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, cls, parent in SECTIONS:
        rows = "\n".join(setting.row() for setting in own_settings(cls, parent))
        parts.append(f"## {title}\n\n| variable | default | allowed | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join([*parts, TAIL])


def own_settings(cls: type[ServiceSettings], parent: type[ServiceSettings] | None) -> Iterator[Setting]:
    """Yield what `cls` adds to `parent`."""
    inherited = parent.model_fields if parent else {}
    for name, field in cls.model_fields.items():
        if name not in inherited:
            yield describe(name, field)


def describe(name: str, field: FieldInfo) -> Setting:
    """Return the row of one field."""
    return Setting(f"{ENV_PREFIX}{name}".upper(), shown_default(field), shown_range(name, field), meaning(field))


def shown_default(field: FieldInfo) -> str:
    """Return the default as it would be written in the environment."""
    if field.is_required():
        return "required"
    value: Any = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(value)
    if value is None or value == "":
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`"


def shown_range(name: str, field: FieldInfo) -> str:
    """Return what is allowed, with the unit that the name's ending tells."""
    choices = [str(value).lower() if value in {True, False} else str(value) for value in literals(field.annotation)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
    low = next((bound(item) for item in field.metadata if isinstance(item, Ge | Gt)), "")
    high = next((bound(item) for item in field.metadata if isinstance(item, Le | Lt)), "")
    span = f"{low} - {high}" if low and high else f"from {low}" if low else f"up to {high}" if high else ""
    return f"{span} {unit}".strip()


def bound(item: Ge | Gt | Le | Lt) -> str:
    """Return one end of a range."""
    if isinstance(item, Ge):
        return number(item.ge)
    if isinstance(item, Le):
        return number(item.le)
    return f"({number(item.gt)})" if isinstance(item, Gt) else f"({number(item.lt)})"


def number(value: Any) -> str:
    """Return a number with separated thousands."""
    return f"{value:,}"


def literals(annotation: Any) -> list[object]:
    """Return the values that a type enumerates, if it does."""
    if annotation is bool:
        return [True, False]
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if get_origin(annotation) in {Union, UnionType}:
        return [value for part in get_args(annotation) if part is not NoneType for value in literals(part)]
    return []


def meaning(field: FieldInfo) -> str:
    """Return the description without the default at its end that merely repeats the column beside it."""
    text = (field.description or "").removesuffix(".")
    for value in (shown_default(field).strip("`"), plain(field.default), "Required"):
        for tail in (f" Default {value}", f" default {value}", f" {value}"):
            if value and text.endswith(tail):
                return f"{text.removesuffix(tail).rstrip(',;.')}."
    return f"{text}."


def plain(value: object) -> str:
    """Return a number with separated thousands, as descriptions have it; of anything else, nothing."""
    return number(value) if isinstance(value, int) and not isinstance(value, bool) else ""


if __name__ == "__main__":
    sys.exit(main())
