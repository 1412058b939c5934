"""On what, and with what, an experiment was run."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from ledger.ledger import Ledger

_PACKAGES = ("downpour", "celery", "kombu", "redis", "gevent", "urllib3")


def describe_versions(ledger: Ledger) -> dict[str, str]:
    """Of what is installed here; with the one image that is what the workers run, too."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    hello = ledger.redis.execute_command("HELLO")  # type: ignore[no-untyped-call]
    answers = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    return {**found, "redis server": f"{answers.get('server')} {answers.get('version')}"}


def describe_machine() -> dict[str, str | int | float]:
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count() or 0,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load": round(os.getloadavg()[0], 2),
    }
