"""A batch's progress until its end: live on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from contextlib import nullcontext

import click
from rich.console import Console
from rich.live import Live

from ledger.jobs import Batch
from producer.client import Client
from producer.screen import Lines, panel
from producer.watch import Watch, exit_code


def show(client: Client, name: str, every: float, console: Console) -> int:
    """
    Returns:
        The exit code: 0 if every job is done.
    """
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    lines = Lines(every, time.monotonic)
    last: Batch | None = None
    with live or nullcontext():
        for snapshot in Watch(client, name, every=min(every, 0.5)).snapshots():
            last = snapshot.batch
            if live:
                live.update(panel(snapshot), refresh=True)
                continue
            for line in lines.of(snapshot):
                click.echo(line, err=console.stderr)
    return exit_code(last) if last else 1
