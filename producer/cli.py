"""The ``producer`` command. Results go to stdout, messages to stderr.

Exit codes
  0    what was asked for is done; for ``submit --wait``, ``watch`` and ``results``: every job is done
  1    some jobs failed, were cancelled or have not ended; ``submit``: some lines were bad; ``recommend``: cannot tell
  2    wrong usage: options, a manifest that cannot be used, a batch that does not exist or has other jobs
  3    Redis cannot be used: unreachable, frozen, full, or it refuses us
  130  interrupted
  143  told to stop by SIGTERM

A command's module is imported when the command runs, so that ``--help`` and ``status`` do not wait for rich, a
comparison's statistics and the rest. Kept true by ``tests/unit/test_imports.py``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib import import_module
from typing import Any

import click

from ledger import __version__
from ledger.jobs import check_batch_name
from producer.errors import ProducerError, code_of_stop, raise_on_sigterm

# Where each command is, and what the list of commands says of it.
_COMMANDS = {
    "cancel": (".submit:cancel", "Cancel a batch, or some of its jobs; finished ones stay as they are."),
    "compare": (".compare:compare", "Compare the pools, with numbers."),
    "dead-letters": (
        ".control:dead_letters",
        "List what lay on the pools' queues and is no message of Downpour, or remove it.",
    ),
    "drain": (".control:drain", "Let one worker take no new jobs; it finishes what it runs and stays up."),
    "pause": (".control:pause", "Let a pool take no new jobs; what runs goes on."),
    "prune": (".control:prune", "Remove finished batches from Redis: records and counters."),
    "recommend": ("poolbench.cli:recommend_", "Say which pool, with what concurrency, from measured runs."),
    "report": ("poolbench.cli:report_", "Show measured runs: page, text, pictures, trace."),
    "results": (".results:results", "Print what became of each job."),
    "resume": (".control:resume", "Let a paused pool take jobs again."),
    "retry": (".submit:retry", "Try the failed jobs of a batch again; their earlier attempts stay in the record."),
    "status": (".control:status", "Show the newest batches, or one; or the workers."),
    "submit": (".submit:submit", "Submit URLs, or the lines of a manifest, as one batch; print the batch's name."),
    "undrain": (".control:undrain", "Let a drained worker take jobs again."),
    "watch": (".watch:watch", "Show a batch's progress until every job has its end."),
}


def say(message: str) -> None:
    click.echo(message, err=True)


def counted(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 'es' if one.endswith('h') else 's'}"


def report(found: Any, lines: Iterable[str], *, as_json: bool, indent: int | None = None) -> None:
    """Print what a command has found, for programs or for people."""
    for line in [json.dumps(found, indent=indent)] if as_json else lines:
        click.echo(line)


def checked_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_batch_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def one_of(values: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([each.value for each in values])


batch_argument = click.argument("batch", callback=checked_name)
json_option = click.option("--json", "as_json", is_flag=True, help="A JSON report on stdout.")


class Late(click.Command):
    """A command whose module is imported when it is called."""

    def __init__(self, name: str, place: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._place = place

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        module, _, name = self._place.partition(":")
        command: click.Command = getattr(import_module(module, "producer"), name)
        return command.make_context(*args, **more)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
    commands={name: Late(name, place, text) for name, (place, text) in _COMMANDS.items()},
)
@click.version_option(__version__, prog_name="Downpour")
def cli() -> None:
    """Enqueue downloads and see what becomes of them.

    Exit codes: 0 done, 1 not every job is done, 2 wrong usage, 3 Redis cannot be used.
    """


def run(argv: Sequence[str] | None = None) -> int:
    """The command's exit code; every foreseen error as one message on stderr."""
    try:
        return cli.main(argv, prog_name="producer", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code if isinstance(error, click.UsageError) else 2
    except (ProducerError, OSError) as error:
        say(f"producer: {error}")
        return error.exit_code if isinstance(error, ProducerError) else 2
    except (click.Abort, KeyboardInterrupt) as stop:
        say("interrupted")
        return code_of_stop(stop)


def main() -> None:
    raise_on_sigterm()
    sys.exit(run())
