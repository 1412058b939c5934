"""Other task queues, each with a worker of its own that does the same work; see ``queue_workers``."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contenders import Rival, Took, cpu, put_away, stopped
from stack.processes import Command, Process
from tests.tied import tied
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / "bench" / "bin" / "python"
_CELERY = "celery -A benchmarks.queue_workers:broker worker --without-gossip --without-mingle"
# What people start, each at its natural best on two cores. The arguments of ``python -m``.
QUEUES = {
    "dramatiq": "dramatiq benchmarks.queue_workers -p 2 -t 8",
    "taskiq": "taskiq worker benchmarks.queue_workers:broker --workers 2",
    "huey": "huey.bin.huey_consumer benchmarks.queue_workers.broker -w 2 -k process",
    "celery prefork": f"{_CELERY} -P prefork -c 2",
    "celery threads": f"{_CELERY} -P threads -c 8",
    "celery gevent": f"{_CELERY} -P gevent -c 32",
    "celery prefork -E": f"{_CELERY} -P prefork -c 2 -E",
}


class Queue(Rival):
    """The worker is stopped while its queue is filled: the clock runs from SIGCONT to the last name."""

    def __init__(self, name: str, folder: Path, valkey: ValkeyProcess, database: int) -> None:
        super().__init__(name, folder)
        self._python = sys.executable if name.startswith("celery") else str(PYTHON)
        redis = valkey.url.rpartition("/")[0]
        self._env = {**os.environ, "BENCH_QUEUE": name.replace(" ", "-"), "BENCH_REDIS": f"{redis}/{database}"}
        self._log = folder / f"{self._env['BENCH_QUEUE']}.log"
        self._valkey = valkey

    @contextmanager
    def started(self) -> Iterator[Queue]:
        argv = [self._python, "-m", *QUEUES[self.name].split()]
        with Process(Command(self.name, tied(argv), self._env, ROOT, log=self._log)) as self._process:
            yield self

    def bring(self, urls: Sequence[str]) -> Took:
        target = Path(tempfile.mkdtemp(dir=self._folder))
        program = "import sys; from benchmarks.queue_workers import fill; fill(sys.argv[1])"
        command = [self._python, "-c", program, str(target)]
        with stopped(self._process.pid):
            subprocess.run(command, input="\n".join(urls).encode(), env=self._env, cwd=ROOT, check=True)
            before, redis_before = cpu(self._process.pid), cpu(self._valkey.pid)
            begun = time.monotonic()
        wait_for(lambda: len(os.listdir(target)) == len(urls), seconds=30, every=0.01, what=f"{self.name} to finish")
        took = time.monotonic() - begun
        result = Took(took, cpu(self._process.pid) - before, cpu(self._valkey.pid) - redis_before)
        put_away(target)
        return result
