"""Downloads through an HTTP proxy, if the operator has named one; what the environment says about proxies is ignored.

The proxy resolves names and connects, so the policy on addresses must live there. What is judged here all the same, on
every hop: scheme, port, user and password in the URL, names of cloud metadata and of this machine, and every spelling
of a literal address. Not judged: which address a name has when the proxy asks. A record says ``via proxy`` then.

The proxy's own address is judged like any other: a private one must be allowed, best by the very name that stands in
DOWNPOUR_PROXY, since a network would also let jobs ask for what else is in it. https goes through CONNECT, with SNI
and certificate by the name of the target; http is asked for by its whole URL. Name and password reach the proxy and
nothing else, and stand in no message.
"""

from __future__ import annotations

import re
import socket
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from download.addresses import AddressPolicy, Network, Target, is_below
from download.errors import BadUrlError, ConnectError, ProtocolError, RefusedError, ResetError, TruncatedError, shown
from download.http1 import Head, HttpConnection, is_passing

NOTE = "via proxy"

_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True, slots=True)
class Proxy:
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)  # of Proxy-Authorization
    direct: frozenset[str] = frozenset()  # hosts, and all below them, that are asked without the proxy
    direct_networks: tuple[Network, ...] = ()  # literal addresses likewise

    @classmethod
    def parse(cls, url: str, direct: frozenset[str] = frozenset()) -> Proxy | None:
        """Read ``http://[user:password@]host:port``; None: an empty text, no proxy.

        Args:
            direct: names (``example.org`` means everything below it, too), addresses and networks.

        Raises:
            ValueError: it is none; the message has no password in it.
        """
        if not url:
            return None
        try:
            parts = urlsplit(url)
            credentials, _, place = parts.netloc.rpartition("@")
            target = Target.parse(f"{parts.scheme}://{place}{parts.path}")
            if parts.scheme != "http" or parts.port is None or parts.path.strip("/") or parts.query or parts.fragment:
                raise ValueError
        except (BadUrlError, ValueError):
            expected, got = "http://[user:password@]host:port", shown(url) if re.match(r"\w+://", url) else "no URL"
            raise ValueError(f"DOWNPOUR_PROXY: expected {expected}, got {got}") from None
        user, _, password = credentials.partition(":")
        basic = b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode() if credentials else None
        networks, names = _told_apart(direct)
        return cls(target.host, target.port, basic and f"Basic {basic}", names, networks)

    def serves(self, target: Target) -> bool:
        """Whether this target is asked through the proxy."""
        name = target.host.rstrip(".")
        if (address := literal(name)) is not None:
            return not any(ip_address(address) in network for network in self.direct_networks)
        return not is_below(name, self.direct)

    def admit(self, target: Target, policy: AddressPolicy) -> None:
        """What can be judged although the proxy resolves the name; ``AddressPolicy.admit`` comes on top.

        Raises:
            RefusedError: the host is a literal address that the policy denies, or this machine's own name.
        """
        name = target.host.rstrip(".")
        if (address := literal(name)) is not None:
            policy.judge(target.host, address)
        elif name.rpartition(".")[2] == "localhost":
            policy.judge(target.host, "127.0.0.1")
        elif _NUMBER.fullmatch(name.rpartition(".")[2]):
            raise RefusedError(f"host {name} ends in a number and is no address")

    def tunnel(self, connection: HttpConnection, target: Target) -> None:
        """Make of a connection to the proxy one to the target.

        Raises:
            RefusedError: the proxy denies the target.
            ConnectError: the target behind it cannot be reached, or the proxy is gone.
            ProtocolError: it does not answer as a proxy.
        """
        place = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        own = [f"Proxy-Authorization: {self.authorization}"] if self.authorization else []
        connection.send([f"CONNECT {place} HTTP/1.1", f"Host: {place}", *own])
        try:
            status = Head(target, connection.head()).status
        except (ResetError, TruncatedError) as error:
            raise ConnectError(f"expected the proxy to connect to {place}, it closed the connection") from error
        if not 200 <= status < 300:
            message = f"expected the proxy to connect to {place}, got status {status}"
            if is_passing(status):  # the proxy did not get there, this time
                raise ConnectError(message)
            raise RefusedError(message + ("; it wants a user and a password that it knows" if status == 407 else ""))
        if connection.ahead:
            raise ProtocolError("expected nothing after the proxy's answer to CONNECT, got more")


def literal(name: str) -> str | None:
    """The address that a host's name is, in whatever spelling a resolver takes: ``2130706433`` is 127.0.0.1."""
    try:
        return str(ip_address(name))
    except ValueError:
        pass
    if "%" in name:  # an address with a zone: the policy refuses it
        return name
    if not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name))
    except OSError:
        return None


def _told_apart(texts: frozenset[str]) -> tuple[tuple[Network, ...], frozenset[str]]:
    networks, names = [], set()
    for text in sorted(texts):
        try:
            networks.append(ip_network(text, strict=False))
        except ValueError:
            if "/" in text:
                raise ValueError(f"DOWNPOUR_NO_PROXY: expected names, addresses and networks, got {text!r}") from None
            names.add(text.lower().strip("."))
    return tuple(networks), frozenset(names)
