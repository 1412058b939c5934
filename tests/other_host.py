"""Another host on this machine: a name, process ids and a wall clock of its own for what is started on it. Needs root.

Folders, network and the monotonic clock are this machine's, as hosts share a file server and a net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAMESPACES = "unshare --uts --pid --mount-proc --fork --kill-child"
_SETTLE = 'hostname "$0" && exec "$@"'


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    ahead: int  # seconds; of its wall clock before this machine's

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs the command there."""
        clock = {
            "LD_PRELOAD": str(libfaketime()),
            "FAKETIME": f"{self.ahead:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",  # the file server's clock is right
            "PYTHONPATH": str(Path(__file__).parent / "faketime"),
        }
        variables = [f"{name}={value}" for name, value in clock.items()]
        return [*_NAMESPACES.split(), "sh", "-c", _SETTLE, self.name, "env", *variables, *command]


def libfaketime() -> Path:
    libraries = list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    assert libraries, "needs Debian's package libfaketime to give a process another clock"
    return libraries[0]
