"""What only the host of a worker can tell: its command line, the cores that it may use, its file descriptors.

A pid is proof of nothing: it may be of another host, container or time. It counts as the worker's when its command line
is that of a worker of this name, started at the time that the worker says.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

CGROUPS = Path("/sys/fs/cgroup")
_START = 120.0  # seconds, at the most, between a process' start and the worker's: imports


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    pid: int
    name: str  # of the worker, by its command line; empty for a program that calls ``worker_main()`` by itself
    app: str  # its -A, or nothing
    argv: tuple[str, ...]
    options: Mapping[str, str]  # of ``celery worker``, by long name; flags are "True"
    host_cores: int
    cores: float  # that it may use: by affinity, and by the quota of its cgroup
    descriptors: int  # that it may have open; -1: not known

    @property
    def seen(self) -> bool:
        return self.pid > 0

    @property
    def called(self) -> str:
        return self.name or f"pid {self.pid}"

    @property
    def patches_gevent(self) -> bool:
        """Whether the celery command patches for this command line: it looks for these spellings only."""
        words = "\0".join(["", *self.argv, ""])
        return any(f"\0{spelt}\0" in words for spelt in ("--pool=gevent", "--pool\0gevent", "-P\0gevent"))


UNSEEN = WorkerProcess(0, "", "", (), {}, host_cores=0, cores=0.0, descriptors=-1)


def process_of(name: str, stats: Mapping[str, Any]) -> WorkerProcess:
    """The process of the worker with this name and these statistics; UNSEEN if it is not to be seen from here."""
    try:
        process = psutil.Process(int(stats["pid"]))
        if not -2 < time.time() - process.create_time() - float(stats["uptime"]) < _START:
            return UNSEEN
        found = _read(process)
    except (psutil.Error, KeyError, ValueError, OSError):
        return UNSEEN
    here = f"{name.partition('@')[0]}@{socket.gethostname()}"
    return found if name in (found.name or here, here) else UNSEEN


def others_here(server: int, ports: Collection[int], known: Collection[int]) -> tuple[WorkerProcess, ...]:
    """Workers on this host that are connected to the broker and are none of the known pids.

    Args:
        server: the broker's port.
        ports: from which clients are connected to it, as the broker sees them.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError, ValueError):
            if "worker" not in (argv := process.cmdline()) or process.pid in known:
                continue
            parent = process.parent()
            if parent is not None and parent.cmdline() == argv:  # a child of prefork
                continue
            connected = [each for each in process.net_connections(kind="tcp") if each.raddr]
            if any(each.laddr.port in ports and each.raddr.port == server for each in connected):
                found.append(_read(process))
    return tuple(found)


def _read(process: psutil.Process) -> WorkerProcess:
    from celery.bin.celery import celery  # noqa: PLC0415 - the project's Celery
    from celery.bin.worker import worker  # noqa: PLC0415
    from celery.utils.nodenames import default_nodename, host_format  # noqa: PLC0415

    argv = process.cmdline()
    at = argv.index("worker") if "worker" in argv else len(argv)
    options = _options(worker, argv[at + 1 :]) if at < len(argv) else {}
    affinity = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
    return WorkerProcess(
        pid=process.pid,
        name=host_format(default_nodename(options.get("hostname", ""))) if options else "",
        app=_options(celery, argv[1:at]).get("app", ""),
        argv=tuple(argv),
        options=options,
        host_cores=os.cpu_count() or 1,
        cores=min(affinity, _quota(process.pid)),
        descriptors=process.rlimit(psutil.RLIMIT_NOFILE)[0] if hasattr(process, "rlimit") else -1,
    )


def _options(command: click.Command, words: Sequence[str]) -> dict[str, str]:
    """As the command's own parser reads them, unconverted: converting imports pools."""
    context = click.Context(command, ignore_unknown_options=True, allow_extra_args=True, allow_interspersed_args=True)
    with suppress(click.ClickException):
        values, _, _ = command.make_parser(context).parse_args(args=list(words))
        return {name: str(value) for name, value in values.items()}
    return {}


def _quota(pid: int) -> float:
    """Cores by the quota of the process' cgroup and those above it; infinite without one."""
    least = float("inf")
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = CGROUPS / controllers
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                if folder.is_relative_to(root):
                    least = min(least, _quota_in(folder))
    return least


def _quota_in(folder: Path) -> float:
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # of cgroups version 2, version 1
        with suppress(OSError, ValueError):
            text = " ".join((folder / name).read_text() for name in names)
            quota, period = map(float, text.split())  # "max" is no number
            return quota / period if quota > 0 else float("inf")
    return float("inf")
