"""The producer as a person runs it: a process of its own, or, where that makes no difference, in ours."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ledger.settings import Settings, get_settings
from producer import cli
from tests.worker_process import ROOT, environment_of


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def start(settings: Settings | Mapping[str, str], *words: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Begin it, with these settings or a whole environment; the caller waits for it, with a timeout, and ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "producer", *map(str, words)],
        **{
            "cwd": ROOT,
            "env": environment_of(settings) if isinstance(settings, Settings) else settings,
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
        mock.patch.dict(os.environ, environment_of(settings), clear=True),
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
