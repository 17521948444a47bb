"""Source distributions, which bring their packages' own tests; each is fetched once and kept between runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

# Not inside this repository: pytest would take its settings for suites that have none of their own.
_CACHE: Final = Path.home() / ".cache" / "tracekit-sdists" / sys.implementation.cache_tag


def unpacked(name: str, version: str, *site: str) -> Path:
    """
    Return the directory that has the sdist of a release in `sdist`, and *site* installed in `site`.

    Args:
        name: What the registry calls the package.
        version: The release.
        site: What is installed beside it, as requirements; nothing that these require is.
    """
    home = _CACHE / f"{name}-{version}"
    if home.exists():
        return home
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as made:
        work = Path(made)
        _pip("install", "--target", str(work / "site"), *site)
        _pip("download", "--no-binary", name, "--dest", str(work), f"{name}=={version}")
        (archive,) = work.glob("*.tar.gz")
        with tarfile.open(archive) as files:
            files.extractall(work / "unpacked", filter="data")
        (tree,) = (work / "unpacked").iterdir()
        shutil.move(tree, work / "sdist")
        work.rename(home)
        work.mkdir()  # for the with-block to remove
    return home


def _pip(command: str, *args: str) -> None:
    pip = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-deps", *args]
    subprocess.run(pip, check=True)
