"""``python -m stack demo`` and ``python -m stack up``."""

from __future__ import annotations

import sys

try:
    import fcntl
    import itertools
    import math
    import os
    import shlex
    import signal
    import subprocess
    import time
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import ExitStack, contextmanager, suppress
    from pathlib import Path
    from types import FrameType
    from typing import Any, TextIO

    import click

    from ledger.jobs import Pool
    from stack.faults import FaultServer
    from stack.plan import CONCURRENCY, PORTS, ROOT
    from stack.processes import Command, Process
    from stack.stack import Stack, StackError
except KeyboardInterrupt:  # before anything was begun
    sys.exit(130)

SAME = 1.0  # seconds; a terminal and make both pass on the signal that ends this process
PAUSE = 0.1  # seconds between two looks at the services
ENV_FILE = ROOT / "run" / "stack.env"  # ``. run/stack.env``
# Until the stack is up: a command that reads the file ends, and talks to no other Redis.
STARTING = "echo 'the stack of `make up` is still starting: wait until it prints its addresses' >&2; return 1\n"
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_yellow")
MOST = 16 * 2**20  # bytes; a log that was shown and is longer than this starts again from nothing

NEXT = """
Next:
  docs/tutorial.md    what the three models are, in ten minutes
  make up             the same stack until Ctrl-C; its page /lanes shows processes, threads and greenlets at work
  make producer ARGS="compare slow --pools prefork:2,threads:8,gevent:100"    a measurement, with advice"""

Folder = click.Path(file_okay=False, path_type=Path)


@click.group()
def main() -> None:
    """The same stack without Docker."""


@main.command()
@click.option("--scenario", default="article", show_default=True, help="What the pools are compared with.")
@click.option("--keep", type=Folder, help="A folder that receives the downloaded files and stays.")
def demo(scenario: str, keep: Path | None) -> None:
    """Start everything, compare the three pools, stop everything."""
    with ends_on_signals(), Stack(flower=True, downloads=keep, say=_say) as stack:
        click.echo(f"\nFlower shows it happening: {stack.plan.flower_url}/lanes\n")
        code = _alongside(stack, "-m", "producer", "compare", "--scenario", scenario)
        click.echo("\nstopping")
    click.echo(f"stopped; what stays is in {keep}" if keep else "stopped; nothing is left behind")
    click.echo(NEXT)
    sys.exit(code)


def _ports_and_pools(command: Callable[..., None]) -> Callable[..., None]:
    for name, port in PORTS.items():
        option = click.option(f"--{name}-port", type=int, help=f"{name}'s; else {port} or, if taken, another.")
        command = option(command)
    for pool, count in CONCURRENCY.items():
        option = click.option(
            f"--{pool}", type=click.IntRange(1), default=count, show_default=True, help="Jobs at once."
        )
        command = option(command)
    return command


@main.command()
@click.option("--downloads", type=Folder, default=ROOT / "downloads", help="Receives the files.", show_default=True)
@click.option("--set", "settings", multiple=True, metavar="DOWNPOUR_X=Y", help="A setting; see ledger/settings.py.")
@click.option(
    "--faults", "with_faults", is_flag=True, help="Buttons on the page of lanes that kill, freeze and wake workers."
)
@_ports_and_pools
def up(downloads: Path, settings: tuple[str, ...], with_faults: bool, **options: Any) -> None:
    """Start everything and keep it running until Ctrl-C; what ends by itself is started again."""
    with ends_on_signals(), ExitStack() as both:
        lock, held = claim(ENV_FILE)
        both.enter_context(held)
        faults = both.enter_context(FaultServer()) if with_faults else None
        told_flower = {"LANES_FAULTS": f"http://{faults.host}"} if faults else {}  # and not the token
        stack = both.enter_context(
            Stack(
                {pool: int(options[pool]) for pool in Pool},
                flower=True,
                downloads=downloads,
                settings=dict(_setting(words) for words in settings) | told_flower,
                prefer=PORTS,
                insist={name: port for name in PORTS if (port := options[f"{name}_port"]) is not None},
                remove=[ENV_FILE, lock],
                say=_say,
            )
        )
        told = stack.plan.downpour("producer")
        variables = {name: value for name, value in told.items() if name.startswith("DOWNPOUR_")}
        fill(variables, ENV_FILE)
        click.echo(_how_to_use(stack, variables))
        if faults:
            click.echo(f"With buttons that kill, freeze and wake workers:\n  {faults.serve(stack)}\n")
        _show_logs(stack)


def _setting(words: str) -> tuple[str, str]:
    name, equals, value = words.partition("=")
    if not equals or not name.startswith("DOWNPOUR_"):
        raise click.BadParameter(f"expected DOWNPOUR_NAME=VALUE, got {words!r}", param_hint="--set")
    return name, value


def _how_to_use(stack: Stack, variables: dict[str, str]) -> str:
    exports = "\n".join(f"  export {name}={variables[name]}" for name in sorted(variables))
    kinds = {
        Pool.PREFORK: "processes, children of pid",
        Pool.THREADS: "threads of pid",
        Pool.GEVENT: "greenlets of pid",
    }
    workers = "\n".join(
        f"{pool:<9}  {count} {kinds[pool]} {stack.processes[f'worker-{pool}'].pid}"
        for pool, count in stack.plan.pools.items()
    )
    return f"""
Flower     {stack.plan.flower_url}
lanes      {stack.plan.flower_url}/lanes shows which process, thread or greenlet runs what
origin     {stack.plan.origin_url} lists URLs to try
downloads  {stack.plan.downloads}
logs       {stack.plan.log("NAME").parent}
Redis      port {stack.plan.redis_port}
{workers}

In another shell:
  make producer ARGS="submit --wait {stack.plan.origin_url}/paced/8/a.bin"
or `.venv/bin/python -m producer ...`, which reads {ENV_FILE.relative_to(ROOT)}:
{exports}
Ctrl-C here stops everything.
"""


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


def _say(line: str) -> None:
    click.echo(f"  {line}")


def _alongside(stack: Stack, *words: str) -> int:
    """Run a Python command beside the stack, with our own output; its return code."""
    process = Process(Command("producer", [sys.executable, *words], stack.plan.env("producer"), ROOT))
    try:
        while (code := process.returncode) is None:
            stack.check()
            time.sleep(PAUSE)
    finally:
        process.signal(signal.SIGINT)  # it cancels what it began and gives the terminal its cursor back
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=2)
        process.stop(grace=0)
    return code if code >= 0 else 128 - code


def _show_logs(stack: Stack) -> None:
    # Valkey's log is of the machine's memory settings and of files; if it ends, its supervisor says so.
    follower = Follower({name: stack.plan.log(name) for name in stack.processes if name != "valkey"})
    while True:
        for line in follower.lines():
            click.echo(line)
        stack.revive()
        time.sleep(PAUSE)


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
            if path.exists() and path.stat().st_size != self._seen[path]:
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


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the stack in order, a second one without the grace; errors become a message."""
    latest = -math.inf

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal latest
        before, latest = latest, time.monotonic()
        if latest - before > SAME:
            # Not echo: the signal may have come in the middle of one.
            with suppress(OSError):
                os.write(2, f"\n{signal.Signals(number).name}: stopping\n".encode())
            raise SystemExit(128 + number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, end)
    try:
        yield
    except StackError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m stack")
