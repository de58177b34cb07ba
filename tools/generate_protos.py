"""Generates `libs/gen` from `protos`, or proves with `--check` that it is up to date.

The generated code is committed: a checkout needs no compiler, and a review shows what a contract change does to it.
Generation is a function of the protos and of the pinned grpcio-tools and mypy-protobuf alone, so `--check` can compare
a fresh generation with the tree byte by byte. Generation goes to a temporary folder first and replaces the tree only
when the compiler succeeded; a failure leaves `libs/gen` as it was.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOS = REPOSITORY / "protos"
GENERATED = REPOSITORY / "libs" / "gen"


def main() -> int:
    """Generate or check, by the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="change nothing; fail when libs/gen is out of date")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="punctual-protos-") as folder:
        fresh = Path(folder)
        code = generate(fresh)
        if code != 0:
            return code
        stale = stale_files(fresh, GENERATED)
        if arguments.check:
            for path in stale:
                print(f"out of date: libs/gen/{path}")
            if stale:
                print("Run `make proto` and commit the result.")
            return 1 if stale else 0
        replace_files(fresh, GENERATED, stale)
    print(f"libs/gen: {len(stale)} files changed")
    return 0


def generate(target: Path) -> int:
    """Compile every proto into `target` and make its folders typed packages; return the compiler's exit code."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    messages = [f"--python_out={target}", f"--mypy_out=quiet:{target}", plugin("mypy")]
    stubs = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}", plugin("mypy_grpc")]
    code = compile_protos(*messages, *sources) or compile_protos(*stubs, *services)
    packages = {package for source in sources for package in Path(source).parents if package.name}
    for package in packages:
        (target / package / "__init__.py").write_text(
            '"""Generated from protos/ by `make proto`."""\n', encoding="utf-8"
        )
        if package.parent == Path():
            (target / package / "py.typed").touch()
    return code


def compile_protos(*arguments: str) -> int:
    """Run the pinned compiler, which brings the well-known types itself; return its exit code."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *arguments]
    return subprocess.run(command, check=False).returncode


def plugin(name: str) -> str:
    """Return the option that names a compiler plugin of this interpreter's environment."""
    return f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"


def files_below(folder: Path) -> set[Path]:
    """Return the files below `folder` as relative paths, without what Python leaves there."""
    return {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }


def stale_files(fresh: Path, tree: Path) -> list[Path]:
    """Return what differs between two folders: changed, missing and left over, sorted."""
    wanted, present = files_below(fresh), files_below(tree)
    changed = {path for path in wanted & present if not filecmp.cmp(fresh / path, tree / path, shallow=False)}
    return sorted(changed | (wanted ^ present))


def replace_files(fresh: Path, tree: Path, stale: list[Path]) -> None:
    """Make `tree` equal to `fresh` by touching only the stale files."""
    for path in stale:
        target = tree / path
        if (fresh / path).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, target)
        else:
            target.unlink()


if __name__ == "__main__":
    sys.exit(main())
