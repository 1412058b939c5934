"""Measured runs as files."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from pydantic import ValidationError

from poolbench.experiment import SCHEMA, Experiment, from_json


class PoolbenchError(click.ClickException):
    """One message for people, after the name of the program that they called."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        context = click.get_current_context(silent=True)
        self._program = (context.find_root().info_name if context else None) or "poolbench"

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self._program}: {self.message}", file=file, err=file is None)


class ReportError(PoolbenchError):
    """What was expected of the runs, or of the place for what is written."""


STDOUT = Path("-")  # as an option's value
_GZIP = b"\x1f\x8b"


def read(path: Path) -> Experiment:
    """
    Raises:
        ReportError: this is not the JSON of an experiment.
    """
    try:
        found = path.read_bytes()
        text = gzip.decompress(found) if found.startswith(_GZIP) else found
        return from_json(text)
    except (OSError, EOFError, zlib.error) as error:
        raise ReportError(f"expected a run at {path}, got: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next((each for each in errors if each["loc"] == ("schema",)), errors[0])
        where, got = ".".join(map(str, first["loc"])) or "content", f"{first['input']!r:.60}"
        raise ReportError(f"expected {path} to be a run ({SCHEMA}); {where}: {first['msg']}, got {got}") from error


# -- a file that is written whole or not at all: first under another name beside it


def writable(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """An option's callback: a file that cannot be written is refused before the run rather than after it."""
    if path not in (None, STDOUT):
        try:
            with _draft(path) as draft:
                if draft != path:
                    draft.touch()
        except OSError as error:
            got = f"{str(path)!r}: {error.strerror}"
            raise click.BadParameter(f"expected a file that can be written, got {got}") from error
    return path


def write_whole(path: Path, content: bytes) -> None:
    """
    Raises:
        ReportError: nothing was written, and what was there is still there.
    """
    try:
        with _draft(path) as draft:
            draft.write_bytes(content)
            if draft != path:
                draft.replace(path)
    except OSError as error:
        raise ReportError(f"expected to write {path}, got: {error.strerror or error}") from error


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """The path itself if it is a pipe or a device, which cannot be replaced."""
    if path.exists() and not path.is_file():
        yield path
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
