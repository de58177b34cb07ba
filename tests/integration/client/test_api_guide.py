"""docs/api.md is true: its `sh` and `python` blocks run, in order, against a scheduler in development mode."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.client.conftest import RunningScheduler

GUIDE = Path(__file__).parents[3] / "docs" / "api.md"
DOCUMENTED_ADDRESS = "127.0.0.1:7400"
ANSWER_MARK = "<!-- test: answer executions -->"
_PART = re.compile(
    rf"^## (?P<title>[^\n]+)$|^```(?P<kind>sh|python)\n(?P<text>.*?)^```$|^{ANSWER_MARK}$", re.MULTILINE | re.DOTALL
)

# What a block leaves for the next: its functions and its exported variables.
SHELL = """
set -eu -o pipefail
if [ -f session ]; then source session; fi
{text}
{{ declare -f; declare -px | grep -v ' \\(PATH\\|PWD\\|OLDPWD\\|SHLVL\\)='; }} > session
"""


@dataclass(frozen=True)
class Block:
    """One step of the guide."""

    title: str
    kind: str
    text: str


def blocks() -> list[Block]:
    found, title = [], ""
    for part in _PART.finditer(GUIDE.read_text(encoding="utf-8")):
        if part["title"]:
            title = part["title"]
        elif part["kind"]:
            found.append(Block(title, part["kind"], part["text"]))
        else:
            found.append(Block(title, "answer", ""))
    return found


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """An empty folder to run in, with the tools that the guide uses."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("punctual", "buf", "python"):
        (tools / name).symlink_to(Path(sys.executable).with_name(name))
    return tmp_path


async def run_block(block: Block, workplace: Path, address: str) -> tuple[int, str]:
    text = block.text.replace(DOCUMENTED_ADDRESS, address)
    arguments = ["bash", "-c", SHELL.format(text=text)] if block.kind == "sh" else [sys.executable, "-c", text]
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=workplace,
        env={"PATH": f"{workplace / 'bin'}:{os.environ['PATH']}", "HOME": str(workplace)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.skipif(shutil.which("jq") is None, reason="the guide uses jq")
async def test_guide_runs_from_top_to_bottom(scheduler: RunningScheduler, workplace: Path) -> None:
    steps = blocks()
    assert len(steps) > 20, "the guide's blocks are found"
    for block in steps:
        if block.kind == "answer":
            assert await scheduler.answer_due() > 0
            continue
        code, output = await run_block(block, workplace, scheduler.address)
        print(f"== {block.title}\n{block.text}\n-- {code}\n{output}")
        assert code == 0, f"{block.title}:\n{block.text}\n{output}"
        assert "Traceback" not in output, output
