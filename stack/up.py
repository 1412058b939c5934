"""What `make up` adds to a stack: a file that tells another shell how to reach it, and the services' logs as one."""

from __future__ import annotations

import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import psutil

from stack.plan import ROOT
from stack.stack import StackError

ENV_FILE = ROOT / "run" / "stack.env"  # ``. run/stack.env``
# Until the stack is up: a command that reads the file ends, and talks to no other Redis.
STARTING = "echo 'the stack of `make up` is still starting: wait until it prints its addresses' >&2; return 1\n"
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_yellow")
MOST = 16 * 2**20  # bytes; a log that was shown and is longer than this starts again from nothing


def claim(file: Path) -> None:
    """Make the file ours, so that two stacks do not take turns in it.

    Raises:
        StackError: another stack has it, and is up.
    """
    file.parent.mkdir(exist_ok=True)
    owner = _owner(file)
    if owner is not None and _alive(owner):
        raise StackError(f"a stack is up already, as process {owner} says in {file}; nothing was started")
    file.unlink(missing_ok=True)  # its owner died with its reaper, as in a power cut
    written = _written(STARTING, file)
    os.link(written, file)  # fails if another one was quicker
    written.unlink()


def fill(variables: Mapping[str, str], file: Path) -> None:
    """Write the variables, to be read by a shell, and by ``python -m producer``."""
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    _written("".join(lines), file).replace(file)


def _written(text: str, file: Path) -> Path:
    """Beside the file, so that a reader of the file finds it whole."""
    beside = file.with_suffix(f".{os.getpid()}")
    beside.touch(0o600)
    beside.write_text(f"# {os.getpid()} is the process of `make up` that wrote this; it goes when that ends.\n{text}")
    return beside


def _owner(file: Path) -> int | None:
    try:
        return int(file.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _alive(pid: int) -> bool:
    try:
        return {"stack", "up"} <= set(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


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
