"""Temp files: each belongs to one claim of one job, ``downloads/.partial/JOB.CLAIM.part``.

The folder lies on the same file system as the files, so that publishing is a link, and outside the batches' folders,
so that those hold nothing but files. Files left by earlier claims are offered to the download, which adopts one only
when nobody has it open any more.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from download.partial import companions

FOLDER = ".partial"


class Partials:
    def __init__(self, downloads: Path, job: str, claim: int) -> None:
        self._stem = f"{downloads}/{FOLDER}/{job}"
        self._claim = claim
        self.place = f"{self._stem}.{claim}.part"  # of this claim's temp file

    @property
    def mine(self) -> Path:
        return Path(self.place)

    @property
    def newest(self) -> Path:
        """What to resume: my own, or the newest that an earlier claim left."""
        earlier = range(self._claim - 1, 0, -1) if not self.mine.exists() else ()
        return next((path for number in earlier if (path := self._of(number)).exists()), self.mine)

    def clear(self) -> None:
        """Remove what this claim and earlier ones left. The folder stays: somebody may be about to use it."""
        with contextlib.suppress(OSError):
            for number in range(self._claim, 0, -1):
                for path in companions(self._of(number)):
                    if os.path.lexists(path):  # mostly there is none left
                        path.unlink(missing_ok=True)

    def _of(self, claim: int) -> Path:
        return Path(f"{self._stem}.{claim}.part")
