"""What the documents point to exists: files, headings, variables, metrics."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from libs.client.cli.app import build
from libs.client.cli.exit_codes import ExitCode
from tests.deploy.manifests import REPOSITORY, SERVICES

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
OTHER_VARIABLES = {
    "PUNCTUAL_ADDRESS": "the command's",
    "PUNCTUAL_CA_FILE": "the command's",
    "PUNCTUAL_ORG": "the command's",
    "PUNCTUAL_TOKEN": "the command's",
    "PUNCTUAL_TOKEN_FILE": "the command's",
    "PUNCTUAL_CRASH_POINT": "for tests",
    "PUNCTUAL_MONGOD": "for tests",
    "PUNCTUAL_VALKEY": "for tests",
    "PUNCTUAL_SCHEDULER_PORT": "what Kubernetes would set if it were let",
}
_CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


def anchors(document: Path) -> set[str]:
    """The headings as GitHub makes anchors of them; blocks of code have none."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)}


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_variables_are_settings() -> None:
    known = {f"PUNCTUAL_{name}".upper() for cls in SERVICES.values() for name in cls.model_fields}
    files = [*DOCUMENTS, *(path for path in (REPOSITORY / "deploy").rglob("*") if path.is_file())]
    for file in files:
        named = set(re.findall(r"\bPUNCTUAL_[A-Z0-9_]*[A-Z0-9]\b", file.read_text(encoding="utf-8")))
        assert named <= known | set(OTHER_VARIABLES), file


def test_metrics_that_operators_are_told_of_exist() -> None:
    told = re.findall(r"\bpunctual_[a-z0-9_]+\b", (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8"))
    known = set(
        re.findall(r"`(punctual_[a-z0-9_]+)`", (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8"))
    )
    assert told
    assert set(told) <= known


def test_commands_that_operators_are_told_are_understood() -> None:
    pages = [REPOSITORY / "docs" / name for name in ("operations.md", "runbooks.md")]
    told = [line for page in pages for line in re.findall(r"`punctual ([^`]+)`", page.read_text(encoding="utf-8"))]
    assert told
    nowhere = ["--address", "127.0.0.1:1", "--deadline", "0.1"]
    for line in told:
        command = shlex.split(line.replace("…", "team=ops"))
        result = CliRunner().invoke(build(), [*command, *nowhere])
        assert result.exit_code == ExitCode.UNAVAILABLE, (line, result.output)


def test_readme_names_what_ci_runs() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    commands = re.findall(r"^make [a-z-]+$", script, re.MULTILINE)
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert commands
    assert [command for command in commands if f"`{command}`" not in readme] == []


def test_contributing_names_every_target() -> None:
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(?:make )?([a-z0-9-]+)[^`]*`", text))
    assert [target for target in targets if target not in named | {"help", "setup"}] == []
