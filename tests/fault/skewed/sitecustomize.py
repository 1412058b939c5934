"""On the PYTHONPATH of one process: its ``time.time`` is off by as many seconds as the file CLOCK_OFFSET says."""

import os
import time

_true = time.time


def _skewed() -> float:
    with open(os.environ["CLOCK_OFFSET"]) as file:  # noqa: PTH123 - loaded before everything else
        return _true() + float(file.read())


time.time = _skewed
