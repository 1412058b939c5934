"""What `make up` adds to a stack: a file that tells another shell how to reach it, and the services' logs as one."""

from __future__ import annotations

import fcntl
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import click

from stack.plan import ROOT
from stack.stack import StackError

ENV_FILE = ROOT / "run" / "stack.env"  # ``. run/stack.env``
# Until the stack is up: a command that reads the file ends, and talks to no other Redis.
STARTING = "echo 'the stack of `make up` is still starting: wait until it prints its addresses' >&2; return 1\n"
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_yellow")
MOST = 16 * 2**20  # bytes; a log that was shown and is longer than this starts again from nothing


def claim(file: Path) -> tuple[Path, TextIO]:
    """Make the file ours, so that two stacks do not take turns in it.

    Returns:
        The file's lock, which goes with the file, and what holds the lock as long as it is open.

    Raises:
        StackError: another stack has it.
    """
    file.parent.mkdir(exist_ok=True)
    lock = file.with_suffix(".lock")
    held = lock.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StackError(f"a stack is up already, as {lock} says; nothing was started") from error
    _write(STARTING, file)
    return lock, held


def fill(variables: Mapping[str, str], file: Path) -> None:
    """Write the variables, to be read by a shell, and by ``python -m producer``."""
    _write("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()), file)


def _write(text: str, file: Path) -> None:
    """By rename, so that a reader of the file finds it whole."""
    beside = file.with_suffix(f".{os.getpid()}")
    beside.touch(0o600)
    beside.write_text(f"# written by `make up`; it goes when that ends\n{text}")
    beside.replace(file)


class Follower:
    """Several growing log files as one stream: each line with its service's name, coloured on a terminal."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        width = max(map(len, logs), default=0)
        self._prefixes = {
            path: click.style(f"{name:<{width}} |", fg=colour)
            for (name, path), colour in zip(logs.items(), itertools.cycle(COLOURS))
        }
        self._seen = dict.fromkeys(self._prefixes, 0)  # bytes

    def lines(self) -> Iterator[str]:
        """The lines since the last look, ready to be shown."""
        for path, prefix in self._prefixes.items():
            if path.exists():
                yield from (f"{prefix} {_printable(line)}" for line in self._new(path))

    def _new(self, path: Path) -> list[str]:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            at = log.seek(min(self._seen[path], size))
            # A line without its end waits for the next look, and so does what came after `size` was asked for.
            whole, newline, _ = log.read(size - at).rpartition(b"\n")
        at += len(whole) + len(newline)
        if at == size > MOST:
            os.truncate(path, 0)  # its writers append, so they go on at the beginning
            at = 0
        self._seen[path] = at
        return whole.decode(errors="replace").splitlines()


def _printable(line: str) -> str:
    """Without characters that a terminal would obey: the line may quote what strangers sent."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
