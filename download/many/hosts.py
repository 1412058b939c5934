"""Names to judged addresses for the transfers of a chunk, without holding up those that go on.

As in ``download.connect``: a name is resolved once, every address of it must pass the policy, and the connection goes
to one of them. A look-up cannot be interrupted, so each has a thread to be left behind in.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from download.addresses import Policy, Target
from download.errors import DnsError, DownloadError
from download.threads import native, start_native_thread

_FRESH = 30.0  # seconds for which a look-up counts
_MOST = 1000  # names kept

Answer = list[str] | DownloadError


def _system_look_up(host: str, port: int) -> list[str]:
    found = native("socket", "getaddrinfo")(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


class Hosts:
    def __init__(self, policy: Policy, look_up: Callable[[str, int], list[str]] = _system_look_up) -> None:
        self._policy = policy
        self._look_up = look_up
        self._known: dict[tuple[str, int], tuple[float, Answer]] = {}
        self._asked: dict[tuple[str, int], list[Any]] = {}

    def ask(self, target: Target) -> list[str] | None:
        """The addresses of a target's host, all of them allowed; None: not known yet, ask again.

        Raises:
            RefusedError: the policy denies the target or one of its addresses.
            DnsError: there is none.
        """
        self._policy.admit(target)
        place = target.host, target.port
        now = time.monotonic()
        if outcome := self._asked.get(place):
            del self._asked[place]
            while len(self._known) >= _MOST:
                self._known.pop(next(iter(self._known)))
            answer = self._judged(target, outcome[0])
            # A failure counts for those who wait now, and for no later retry.
            self._known[place] = now - (_FRESH - 1 if isinstance(answer, DownloadError) else 0), answer
        known = self._known.get(place)
        if known is not None and now - known[0] < _FRESH:
            if isinstance(known[1], DownloadError):
                raise type(known[1])(str(known[1]))
            return known[1]
        if _is_literal(target.host):
            self._known[place] = now, self._judged(target, [target.host])
            return self.ask(target)
        if place not in self._asked:
            self._begin(place)
        return None

    def _begin(self, place: tuple[str, int]) -> None:
        outcome: list[Any] = []
        self._asked[place] = outcome

        def look_up() -> None:
            try:
                outcome.append(self._look_up(*place))
            except Exception as error:  # an unusual one, too, must not leave the others waiting
                outcome.append(error)

        try:
            start_native_thread(f"resolve {place[0]}", look_up)
        except RuntimeError as error:  # no thread left; that passes
            outcome.append(error)

    def _judged(self, target: Target, found: list[str] | Exception) -> Answer:
        if isinstance(found, Exception) or not found:
            return DnsError(f"expected an address of {target.host}, got: {found or 'none'}")
        try:
            for address in found:
                self._policy.judge(target.host, address)
        except DownloadError as error:
            return error
        return found


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
