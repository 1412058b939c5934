"""libcurl in Python and nothing else: what is left of a chunk without the ledger, the records and the rules.

Two processes fetch, hash and write as a chunk does (a file is written, then gets its name), with no claim, no address
policy, no look at the answer, no Redis. A slower contender pays for those; none can be faster and have them.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import pycurl

from benchmarks.contenders import Rival

_PROCESSES = 2
_PARALLEL = 16


class Bare(Rival):
    def __init__(self, folder: Path) -> None:
        super().__init__("bare libcurl in Python, 2 processes, sha256", folder)

    def _ready(self, urls: Sequence[str], target: Path) -> Callable[[], None]:
        numbered = list(enumerate(urls))
        parts = [numbered[at::_PROCESSES] for at in range(_PROCESSES)]
        tasks = [multiprocessing.Process(target=_bring, args=(part, target)) for part in parts]

        def run() -> None:
            for task in tasks:
                task.start()
            for task in tasks:
                task.join()

        return run


def _bring(urls: Sequence[tuple[int, str]], folder: Path) -> None:
    multi = pycurl.CurlMulti()
    free = [pycurl.Curl() for _ in range(_PARALLEL)]
    busy: dict[pycurl.Curl, tuple[int, list[bytes]]] = {}
    feed = iter(urls)
    while True:
        for number, url in islice(feed, len(free)):
            easy, body = free.pop(), list[bytes]()
            easy.setopt(pycurl.URL, url)
            easy.setopt(pycurl.WRITEFUNCTION, body.append)
            multi.add_handle(easy)
            busy[easy] = number, body
        if not busy:
            return
        multi.perform()
        _, good, bad = multi.info_read()
        assert not bad, bad
        for easy in good:
            multi.remove_handle(easy)
            free.append(easy)
            _save(folder, *busy.pop(easy))
        if not good:
            multi.select(0.1)


def _save(folder: Path, number: int, pieces: Sequence[bytes]) -> None:
    body = b"".join(pieces)
    hashlib.sha256(body).hexdigest()
    fd = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
    os.write(fd, body)
    os.link(f"/proc/self/fd/{fd}", folder / str(number), src_dir_fd=fd, follow_symlinks=True)
    os.close(fd)
