"""How late somebody is who wants the interpreter at fixed moments: what a GIL, or a hub, makes others wait.

Only a comparison switches this on, for the workers that it starts itself (``DOWNPOUR_LATENESS``). Every process that
runs jobs has one probe: it sleeps until the next moment, looks at the clock, and notes by how much it came too late.
Where jobs are processes or threads the probe is a thread, so it waits for the GIL, and for a core; under gevent it is a
greenlet, so it waits for the hub, as every other job does. A thread under an idle interpreter is some 0.1 ms late.

The cost: 50 moments a second, about 0.3 % of a core (measured, idle). Notes go to ``FOLDER/PID`` ten times a second,
as pairs of doubles: the moment (CLOCK_MONOTONIC, the same in all processes of a machine) and the lateness, in seconds.
``poolbench.sampler`` reads them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from array import array
from pathlib import Path

EVERY = 0.02  # seconds
_NOTES = 5  # per write


def keep_probing(folder: Path) -> None:
    """Probe this process until it ends."""
    # Under gevent this is a greenlet, and so is the sleep: the hub is what jobs wait for there.
    threading.Thread(target=_probe, args=(folder / str(os.getpid()),), name="lateness", daemon=True).start()


def _probe(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as notes:  # a folder that went: nobody reads
        pairs = array("d")
        moment = time.monotonic() + EVERY
        while True:
            time.sleep(max(0.0, moment - time.monotonic()))
            now = time.monotonic()
            while moment <= now:  # every moment that went by, or one long wait would count as one short
                pairs.extend((moment, now - moment))
                moment += EVERY
            if len(pairs) >= 2 * _NOTES:
                notes.write(pairs.tobytes())
                pairs = array("d")
