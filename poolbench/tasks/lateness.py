"""A process' scheduling latency: how late it is that wants the interpreter at fixed moments, noted until the end.

Where jobs are processes or threads the probe is a thread, so it waits for the GIL, and for a core; under gevent it is
a greenlet, so it waits for the hub, as every other job does. A thread under an idle interpreter is some 0.1 ms late.
Imports nothing heavy: it is part of what is measured. 50 moments a second cost about 0.3 % of a core (measured, idle).
"""

from __future__ import annotations

import os
import threading
import time
from array import array
from contextlib import suppress
from pathlib import Path

PROBE_EVERY = 0.02  # seconds
_NOTES = 5  # moments per write


def keep_probing(folder: Path) -> None:
    """Notes go to ``FOLDER/PID`` ten times a second, as pairs of doubles: the moment and the latency, in seconds.

    The moment is by CLOCK_MONOTONIC, the same in all processes of a machine. ``poolbench.sampler`` reads them.
    """
    threading.Thread(target=_probe, args=(folder / str(os.getpid()),), name="latency", daemon=True).start()


def _probe(file: Path) -> None:
    with suppress(OSError), file.open("ab", buffering=0) as notes:  # the folder went: the run is over
        pairs = array("d")
        moment = time.monotonic() + PROBE_EVERY
        while True:
            time.sleep(max(0.0, moment - time.monotonic()))
            now = time.monotonic()
            while moment <= now:  # every moment that went by, or one long wait would count as one short
                pairs.extend((moment, now - moment))
                moment += PROBE_EVERY
            if len(pairs) >= 2 * _NOTES:
                notes.write(pairs.tobytes())
                pairs = array("d")
