"""Names to judged addresses for the transfers of a chunk, without holding up those that go on.

As in ``download.connect``: a name is resolved once, every address of it must pass the policy, and the connection goes
to one of them. A look-up cannot be interrupted, so each has a thread to be left behind in.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from download.addresses import Policy, Target
from download.connect import LookUp, addresses
from download.threads import native, start_native_thread

_FRESH = 30.0  # seconds for which a look-up counts
_MOST = 1000  # names kept


def _native_look_up(host: str, port: int) -> list[str]:
    return addresses(native("socket", "getaddrinfo")(host, port, type=socket.SOCK_STREAM))


@dataclass(slots=True)
class _Known:
    look_up: LookUp
    until: float = 0.0  # time.monotonic(); set when it is over
    allowed: list[str] | None = None


class Hosts:
    def __init__(self, policy: Policy, look_up: Callable[[str, int], list[str]] = _native_look_up) -> None:
        self._policy = policy
        self._look_up = look_up
        self._known: dict[tuple[str, int], _Known] = {}

    def ask(self, target: Target) -> list[str] | None:
        """The addresses of a target's host, all of them allowed; None: not known yet, ask again.

        Raises:
            RefusedError: the policy denies the target or one of its addresses.
            DnsError: there is none.
        """
        self._policy.admit(target)
        place, now = (target.host, target.port), time.monotonic()
        known = self._known.get(place)
        if known is None or 0 < known.until < now:
            while len(self._known) >= _MOST:
                self._known.pop(next(iter(self._known)))
            look_up = LookUp(*place, lambda: None, look_up=self._look_up, start=start_native_thread)
            known = self._known[place] = _Known(look_up)
        if known.allowed is None and known.look_up.over:
            known.until = known.until or now + 1  # a failure counts for those that wait now, and for no later retry
            known.allowed = known.look_up.judged(self._policy)
            known.until = now + _FRESH
        return known.allowed
