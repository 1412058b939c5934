"""The file that tells another shell how to reach a stack that is up: ``. run/stack.env``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import psutil

from stack.errors import StackError
from stack.plan import ROOT

HANDOUT = ROOT / "run" / "stack.env"


def claim(handout: Path = HANDOUT) -> None:
    """Make the file ours, so that two stacks do not take turns in it.

    Raises:
        StackError: another stack has it, and is up.
    """
    handout.parent.mkdir(exist_ok=True)
    owner = _owner(handout)
    if owner is not None and _alive(owner):
        raise StackError(f"a stack is up already, as process {owner} says in {handout}; nothing was started")
    handout.unlink(missing_ok=True)  # its owner died with its reaper, as in a power cut
    with os.fdopen(os.open(handout, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(_heading())


def fill(variables: Mapping[str, str], handout: Path = HANDOUT) -> None:
    """Write the variables, to be read by a shell."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    handout.write_text(_heading() + "".join(lines))


def _heading() -> str:
    return f"# {os.getpid()} is the process of `make up` that wrote this; it goes when that ends.\n"


def _owner(handout: Path) -> int | None:
    try:
        return int(handout.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _alive(pid: int) -> bool:
    try:
        return {"stack", "up"} <= set(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
