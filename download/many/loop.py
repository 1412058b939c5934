"""libcurl's multi interface: many transfers at once in one thread, told when their sockets are ready.

Guarantees: a socket goes to no address that the policy denies (libcurl asks ``Slot.open_socket`` for each, whatever it
believes about names); proxies, redirects, decoding, cookies and HTTP/2 are off; each transfer is looked at ten times
a second, so ``check()`` and the limits hold as in the single path. A loop belongs to one thread at a time.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pycurl

from download.addresses import Policy
from download.http1 import Head
from download.many.hosts import Hosts
from download.many.slot import Slot, authorities
from download.many.transfer import Again, Transfer
from download.threads import native

_LOOK_EVERY = 0.1  # seconds
_KEPT = 64  # connections
_HANG = select.POLLHUP | select.POLLERR | select.POLLNVAL
_POLL = {
    pycurl.POLL_IN: select.POLLIN,
    pycurl.POLL_OUT: select.POLLOUT,
    pycurl.POLL_INOUT: select.POLLIN | select.POLLOUT,
}


class Loop:
    def __init__(self, policy: Policy, *, ca_file: Path | None = None) -> None:
        self._policy = policy
        self._ca_file = str(ca_file) if ca_file else authorities()
        self._hosts = Hosts(policy)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._interest)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, _KEPT)
        self._poll = native("select", "poll")()
        self._due: float | None = None  # when libcurl wants to be called
        self._free: list[Slot] = []
        self._busy: dict[pycurl.Curl, Slot] = {}
        self._resolving: deque[Transfer] = deque()
        self._looked = 0.0
        self._kept: dict[int, int] = {}
        self._closing: set[tuple[str, str, int]] = set()  # origins that answer once per connection

    @property
    def active(self) -> list[Transfer]:
        """Those that have begun and are not over."""
        return [*self._resolving, *(slot.transfer for slot in self._busy.values() if slot.transfer)]

    def turn(self, feed: Iterator[Transfer], parallel: int, seconds: float, enough: int) -> list[Transfer]:
        """Let transfers go on, that many at once; those that are over.

        Args:
            feed: the next ones to begin.
            seconds: when to come back at the latest,
            enough: ... or when so many are over.
        """
        done: list[Transfer] = []
        until = time.monotonic() + seconds
        while len(done) < enough:
            room = parallel - len(self._busy) - len(self._resolving)
            for transfer in islice(feed, max(0, room)):
                self._begin(transfer, done)
            now = time.monotonic()
            if not (self._busy or self._resolving) or now >= until:
                break
            self._wait(min(until, now + (0.01 if self._resolving else _LOOK_EVERY)) - now, done)
            if time.monotonic() - self._looked >= _LOOK_EVERY or self._resolving:
                self._look(done)
        return done

    def close(self) -> None:
        """Drop whatever goes on."""
        for easy in self._busy:
            self._multi.remove_handle(easy)
        self._busy.clear()
        self._multi.close()

    # -- transfers

    def _begin(self, transfer: Transfer, done: list[Transfer]) -> None:
        try:
            transfer.timeouts.resolving(transfer.target.host)
            self._connect(transfer)
        except BaseException as error:
            self._stop(transfer, error, done)

    def _connect(self, transfer: Transfer) -> None:
        """Give it a handle, or leave it among those whose host is not known yet."""
        addresses = self._hosts.ask(transfer.target)
        if addresses is None:
            self._resolving.append(transfer)
            return
        if transfer.target.scheme == "https" and not self._ca_file:
            raise Again("found no file of certificate authorities for libcurl")
        slot = self._free.pop() if self._free else Slot(self._policy, self._ca_file, self._kept)
        try:
            slot.listen(transfer.target.origin in self._closing)
            slot.prepare(transfer, addresses, transfer.timeouts.limits.connect_timeout)
        except BaseException:
            self._free.append(slot)
            raise
        self._busy[slot.easy] = slot
        self._multi.add_handle(slot.easy)

    def _release(self, slot: Slot) -> None:
        self._multi.remove_handle(slot.easy)
        del self._busy[slot.easy]
        slot.transfer = None
        slot.opened.clear()
        self._free.append(slot)

    def _collect(self, done: list[Transfer]) -> None:
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for easy in good:
                self._over(easy, 0, "", done)
            for easy, code, text in bad:
                self._over(easy, code, text, done)

    def _over(self, easy: pycurl.Curl, code: int, text: str, done: list[Transfer]) -> None:
        slot = self._busy[easy]
        transfer = slot.transfer
        assert transfer is not None  # noqa: S101 - it is busy
        broken = bool(code) and easy.getinfo(pycurl.OS_ERRNO) != 0
        if code and slot.refused is not None:
            self._release(slot)
            self._stop(transfer, slot.refused, done)
            return
        if code == pycurl.E_ABORTED_BY_CALLBACK and slot.dirty:
            self._release(slot)
            self._begin(transfer, done)  # on another connection
            return
        if not code:
            slot.keep()
        more = transfer.over(code, text, broken=broken, complete=lambda head: self._complete(slot, head))
        self._release(slot)
        self._next(transfer, more, done)

    def _stop(self, transfer: Transfer, error: BaseException, done: list[Transfer]) -> None:
        self._next(transfer, transfer.stop(error), done)

    def _next(self, transfer: Transfer, more: bool, done: list[Transfer]) -> None:
        if more:
            self._begin(transfer, done)
        else:
            done.append(transfer)

    def _complete(self, slot: Slot, head: Head) -> bool:
        complete = slot.complete()
        if not complete and slot.closes(head):
            self._closing.add(head.target.origin)
        return complete

    def _look(self, done: list[Transfer]) -> None:
        self._looked = time.monotonic()
        for _ in range(len(self._resolving)):
            transfer = self._resolving.popleft()
            try:
                transfer.timeouts.slice()
                self._connect(transfer)
            except BaseException as error:
                self._stop(transfer, error, done)
        for slot in list(self._busy.values()):
            busy = slot.transfer
            assert busy is not None  # noqa: S101 - it has a handle
            try:
                busy.look(slot.connected)
            except BaseException as error:
                self._release(slot)
                self._stop(busy, error, done)

    # -- sockets

    def _interest(self, what: int, fd: int, _multi: Any, _data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            with suppress(KeyError):
                self._poll.unregister(fd)
        else:
            self._poll.register(fd, _POLL[what])

    def _timer(self, milliseconds: int) -> None:
        self._due = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _wait(self, seconds: float, done: list[Transfer]) -> None:
        """Until a socket is ready or libcurl's timer is due; then libcurl works.

        New transfers start before anything else, and what a call brought is looked at before the next call. Else a
        connection might serve another transfer already when it is asked whether anything is left in it.
        """
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            self._collect(done)
        if self._due is not None:
            seconds = min(seconds, self._due - time.monotonic())
        for fd, what in self._poll.poll(max(0.0, seconds * 1000)):
            flags = (pycurl.CSELECT_IN if what & (select.POLLIN | _HANG) else 0) | (
                pycurl.CSELECT_OUT if what & select.POLLOUT else 0
            )
            self._multi.socket_action(fd, flags | (pycurl.CSELECT_ERR if what & _HANG else 0))
            self._collect(done)
