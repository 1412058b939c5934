"""Loops beside the jobs: each in a native thread, which no busy gevent hub starves, while the process lives."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable

from redis.exceptions import RedisError

from download.threads import native_sleep, start_native_thread

log = logging.getLogger("downpour.worker")

_PATIENCE = 60.0  # seconds that a loop may fail before the process ends


def keep(name: str, every: float, step: Callable[[], object]) -> None:
    """Call a step every so many seconds, until it returns ``False``.

    While Redis or the disk is away the step is tried again in silence. Any other error is logged once and the step is
    tried again; if that goes on for a minute the process is told to stop, because it would go on taking jobs without
    what the step does for them.
    """

    def loop() -> None:
        failures = 0
        try:
            while True:
                try:
                    if step() is False:
                        return
                    failures = 0
                except (RedisError, OSError):
                    pass
                except Exception:
                    failures += 1
                    if failures == 1:
                        log.exception("loop %s failed, it goes on", name)
                    if failures * every >= _PATIENCE:
                        break
                native_sleep(every)
            log.critical("loop %s fails again and again: the process stops", name)
        except BaseException:
            log.critical("loop %s ended: the process stops", name, exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        os.kill(os.getpid(), signal.SIGTERM)

    start_native_thread(name, loop)
