"""``celery -A APP poolbench``: Celery imports this in each of its commands, workers too: so it imports little."""

from __future__ import annotations

import click


class Plugin(click.Group):
    """The commands of ``poolbench``, imported when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _commands().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _commands().get_command(ctx, cmd_name)


def _commands() -> click.Group:
    from poolbench.cli import cli  # noqa: PLC0415

    return cli


@click.command("poolbench", cls=Plugin, context_settings={"help_option_names": ["-h", "--help"]})
def plugin() -> None:
    """Which pool, with what concurrency? Measured on your own tasks."""


@plugin.result_callback()
def leave(code: int) -> None:
    """A command returns its exit code."""
    click.get_current_context().exit(code)
