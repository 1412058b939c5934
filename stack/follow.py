"""Several growing log files as one stream: each line with its service's name, coloured on a terminal."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_yellow")
MOST = 16 * 2**20  # bytes; a log that was shown and is longer than this starts again from nothing


class Follower:
    """Reads what was added since the last look."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self._width = max(map(len, logs), default=0)
        self._logs = [_Log(name, path, colour) for (name, path), colour in zip(logs.items(), itertools.cycle(COLOURS))]

    def lines(self) -> Iterator[str]:
        """The new lines, ready to be shown."""
        for log in self._logs:
            prefix = click.style(f"{log.name:<{self._width}} |", fg=log.colour)
            for line in log.new():
                yield f"{prefix} {line}"


class _Log:
    def __init__(self, name: str, path: Path, colour: str) -> None:
        self.name = name
        self.colour = colour
        self._path = path
        self._at = 0

    def new(self) -> list[str]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            self._at = min(self._at, size)
            log.seek(self._at)
            # A line without its end waits for the next look, and so does what came after `size` was asked for.
            whole, newline, _ = log.read(size - self._at).rpartition(b"\n")
        self._at += len(whole) + len(newline)
        if self._at == size > MOST:
            os.truncate(self._path, 0)  # its writers append, so they go on at the beginning
            self._at = 0
        return [printable(line) for line in whole.decode(errors="replace").splitlines()]


def printable(line: str) -> str:
    """The line without characters that a terminal would obey: it may quote what strangers sent."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
