"""The wheel of poolbench has every part of it, and the rest of the repository builds none."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "poolbench"


def test_every_folder_and_every_file_that_is_no_module_is_in_the_wheel() -> None:
    built = tomllib.loads((FOLDER / "pyproject.toml").read_text())["tool"]["setuptools"]

    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in FOLDER.rglob("__init__.py")}
    assert set(built["packages"]) == packages
    data = {path for name, globs in built["package-data"].items() for glob in globs for path in _found(name, glob)}
    others = {path for path in FOLDER.rglob("*") if path.suffix in (".css", ".j2", ".js", ".typed")}
    others |= set(FOLDER.glob("*/*.toml"))
    assert data == others


def _found(package: str, glob: str) -> list[Path]:
    return list((ROOT / package.replace(".", "/")).glob(glob))


def test_the_application_is_no_package() -> None:
    assert not {"project", "build-system"} & set(tomllib.loads((ROOT / "pyproject.toml").read_text()))
