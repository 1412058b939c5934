"""What several commands take, and how they speak to a person."""

from __future__ import annotations

import click

from ledger.jobs import check_batch_name


def say(message: str) -> None:
    click.echo(message, err=True)


def checked_name(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_batch_name(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


batch_argument = click.argument("batch", callback=checked_name)
json_option = click.option("--json", "as_json", is_flag=True, help="A JSON report on stdout.")
