"""``celery -A APP poolbench``: Celery imports this in each of its commands, workers too: so it imports little."""

from __future__ import annotations

import click


@click.command("poolbench", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def plugin(context: click.Context, words: tuple[str, ...]) -> None:
    """Which pool, with what concurrency? Measured on your own tasks."""
    from poolbench.cli import cli  # noqa: PLC0415

    cli.main(words, prog_name="poolbench", parent=context)


def leave(code: int) -> None:
    """A command returns its exit code."""
    click.get_current_context().exit(code)
