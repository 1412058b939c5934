"""libcurl in Python and nothing else: what is left of a chunk without the ledger, the records and the rules.

Two processes fetch, hash and write as a chunk does (a file is written, then gets its name), with no claim, no address
policy, no look at the answer, no Redis. Who is slower than this pays for those; nobody can be quicker and have them.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pycurl

from benchmarks.contenders import Took, put_away

_PROCESSES = 2
_PARALLEL = 16


class Bare:
    def __init__(self, folder: Path) -> None:
        self.name = "bare libcurl in Python, 2 processes, sha256"
        self._folder = folder
        self._turn = 0

    def bring(self, urls: Sequence[str]) -> Took:
        self._turn += 1
        target = self._folder / f"bare-{self._turn}"
        target.mkdir(parents=True)
        tasks = [
            multiprocessing.Process(target=_bring, args=(list(enumerate(urls))[at::_PROCESSES], target))
            for at in range(_PROCESSES)
        ]
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
        seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert len(os.listdir(target)) == len(urls), f"{self.name}: files are missing"
        put_away(target)
        return Took(seconds, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


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
