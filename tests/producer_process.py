"""The producer as a person runs it: a process of its own, or, where that makes no difference, in ours."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ledger.settings import Settings, get_settings
from producer import cli

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(settings: Settings) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DOWNPOUR_")}
    return clean | {
        "DOWNPOUR_REDIS_URL": settings.redis_url,
        "DOWNPOUR_KEY_PREFIX": settings.key_prefix,
        "DOWNPOUR_REDIS_TIMEOUT": str(settings.redis_timeout),
        "DOWNPOUR_REDIS_PATIENCE": str(settings.redis_patience),
        "DOWNPOUR_ALLOW_EVICTION": str(settings.allow_eviction),
        "PYTHONUNBUFFERED": "1",
    }


def start(settings: Settings, *words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Begin it; the caller waits for it, with a timeout, and ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "producer", *map(str, words)],
        **{
            "cwd": ROOT,
            "env": environment(settings),
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        },
    )


def run(settings: Settings, *words: str | Path, given: str = "") -> Said:
    """Run a command to its end in this process, which saves half a second each time."""
    out, err = io.StringIO(), io.StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode()))),
        mock.patch.dict(os.environ, environment(settings), clear=True),
    ):
        get_settings.cache_clear()
        code = cli.run([str(word) for word in words])
    get_settings.cache_clear()
    return Said(code, out.getvalue(), err.getvalue())


def finish(process: subprocess.Popen[str], *, seconds: float = 60) -> Said:
    """Wait for its end, or kill it and fail after that time."""
    with process:
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            process.kill()
    assert "Traceback" not in err, err
    return Said(process.returncode, out, err)
