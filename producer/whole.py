"""A file that is written whole or not at all: first under another name beside it."""

from __future__ import annotations

import os
from pathlib import Path


def check(path: Path) -> None:
    """Whether a file can be written there, without leaving one.

    Raises:
        OSError: it cannot.
    """
    if _special(path):
        return
    draft = _draft(path)
    try:
        draft.touch()
    finally:
        draft.unlink(missing_ok=True)


def write(path: Path, content: bytes) -> None:
    """
    Raises:
        OSError: nothing was written, and what was there is still there.
    """
    if _special(path):
        path.write_bytes(content)
        return
    draft = _draft(path)
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _special(path: Path) -> bool:
    """A pipe or a device, which cannot be replaced."""
    return path.exists() and not path.is_file()


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
