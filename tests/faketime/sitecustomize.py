"""On the PYTHONPATH of a process under libfaketime: it can sleep.

Python sleeps until a moment of the monotonic clock, which is not faked; libfaketime 0.9.10 takes that for a moment of
the wall clock, and the call fails.
"""

import select
import time
from typing import SupportsIndex

_select = select.select  # gevent replaces it later


def _sleep(seconds: float | SupportsIndex) -> None:
    _select((), (), (), seconds if isinstance(seconds, float) else seconds.__index__())


time.sleep = _sleep
