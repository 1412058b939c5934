"""The files' names are unique in their batch. What a name may be, ``download.filenames`` says.

Names are given in the manifest's order, so the same manifest names the same files each time; only hashes are kept,
about 100 bytes per job.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import PurePosixPath

from download.filenames import suffixed


class Names:
    """The names of one batch."""

    def __init__(self, shard: int = 0) -> None:
        """
        Args:
            shard: files per folder; 0: all in one.
        """
        self._shard = shard
        self._given = 0
        self._files: set[int] = set()
        self._folders: set[int] = set()
        self._next: dict[int, int] = {}  # of names wanted more than once: the suffix to try next

    def place(self, name: str) -> str:
        """Where the next file goes, if nobody says more than its name."""
        return f"{self._given // self._shard:04d}/{name}" if self._shard else name

    def give(self, wanted: str) -> str:
        """The name, or ``stem-2.ext``, ``stem-3.ext`` ... if it is taken.

        Args:
            wanted: a checked filename.

        Raises:
            ValueError: one of its folders is a file of this batch already.
        """
        path = PurePosixPath(wanted)
        folders = [str(folder) for folder in list(path.parents)[:-1]]
        for folder in folders:
            if _hash(folder) in self._files:
                raise ValueError(f"expected a folder, but {folder!r} in filename {wanted!r} is a file of this batch")
        name, key = wanted, _hash(wanted)
        number = self._next.get(key, 2)
        while _hash(name) in self._files or _hash(name) in self._folders:
            name = str(path.with_name(suffixed(path.name, number)))
            number += 1
        if name != wanted:
            self._next[key] = number
        self._given += 1
        self._files.add(_hash(name))
        self._folders.update(map(_hash, folders))
        return name


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest())
