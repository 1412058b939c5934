"""What ends a command of poolbench: what happened, what was expected, what we got, and how to go on."""

from __future__ import annotations

from typing import IO, Any

import click


class PoolbenchError(click.ClickException):
    """One message for people, after the name of the program that they called."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        context = click.get_current_context(silent=True)
        self._program = (context.find_root().info_name if context else None) or "poolbench"

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self._program}: {self.message}", file=file, err=file is None)


class RunError(PoolbenchError):
    """The file of an experiment cannot be read, or is something else."""


class ReportError(PoolbenchError):
    """What was expected of the runs, or of the place for the report."""
