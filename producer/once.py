"""The same line once: for manifests that were put together from several."""

from __future__ import annotations

from hashlib import blake2b


class Once:
    """Remembers 16 bytes of each line, which is about 100 with Python's share: as much as its name costs anyway."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.repeated = 0

    def first(self, url: str, filename: str | None) -> bool:
        """Whether this URL has not been seen with this filename; without a filename it is another line."""
        key = blake2b(f"{url}\n{filename or ''}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in self._seen:
            self.repeated += 1
            return False
        self._seen.add(key)
        return True
