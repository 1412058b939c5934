"""Which URLs and addresses may be downloaded from: deny by default, by an own table.

Guarantees:

- One parse. ``Target.parse`` reads a URL once; what it found is judged and is what is connected to.
- Addresses are judged, not texts: every spelling of 127.0.0.1 resolves to 127.0.0.1.
- Every address of a name must pass, and the connection goes to a judged one (``download.connect``), so a
  name that resolves differently a moment later gains nothing.

Not guaranteed: a public address may still lead to an internal system, behind a tunnel or a reverse proxy.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, urljoin, urlsplit

from download.errors import BadUrlError, RefusedError, shown
from ledger.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Private rules give way to a host that the operator allows by name; the others only to a network.
_PRIVATE = {
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "carrier NAT",
    "127.0.0.0/8": "loopback",
    "172.16.0.0/12": "private",
    "192.168.0.0/16": "private",
    "::1/128": "loopback",
    "fc00::/7": "unique local",
}
_NEVER = {
    "0.0.0.0/8": "this network",
    "168.63.129.16/32": "cloud metadata",
    "169.254.0.0/16": "link local and cloud metadata",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "AS112",
    "192.52.193.0/24": "AMT",
    "192.88.99.0/24": "6to4 relay",
    "192.175.48.0/24": "AS112",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "fd00:ec2::/32": "cloud metadata",
    "2001::/23": "protocol assignments and Teredo",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "AS112",
    "3fff::/20": "documentation",
}
_RULES: list[tuple[Network, str, bool]] = [  # network, name, whether it is private
    (ip_network(text), name, private)
    for table, private in ((_NEVER, False), (_PRIVATE, True))
    for text, name in table.items()
]
_GLOBAL_6 = IPv6Network("2000::/3")
_METADATA_HOSTS = frozenset(
    {
        "metadata", "metadata.google.internal", "metadata.goog", "metadata.azure.internal", "metadata.azure.com",
        "metadata.packet.net", "metadata.platformequinix.com", "instance-data", "instance-data.ec2.internal",
        "metadata.oraclecloud.com", "metadata.tencentyun.com", "rancher-metadata",
    }
)  # fmt: skip

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_HOST = re.compile(r"(?=.{1,253}\.?\Z)(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_PATH_SAFE = "/%:@!$&'()*+,;=~-._"
# Origin and path of a URL whose path needs no escapes: the end of the origin is where urlsplit sees it, too.
_PLAIN = re.compile(r"(https?://[^/?#]+)(/[A-Za-z0-9/%:@!$&'()*+,;=~._-]*(?:\?[A-Za-z0-9/%:@!$&'()*+,;=~._?\[\]-]+)?)")


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, read once: nothing is parsed again on the way to the socket."""

    scheme: str  # http or https
    host: str  # lower case, ASCII; an IPv6 literal without brackets
    port: int
    path: str  # with the query, percent-encoded; begins with a slash

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    def join(self, location: str) -> Target:
        """The target of a redirect.

        Raises:
            BadUrlError: the location is no acceptable URL.
        """
        location = location.replace(" ", "%20")  # as browsers do
        _refuse_forbidden(location)  # urljoin drops tabs and newlines silently
        try:
            joined = urljoin(self.url, location)
        except ValueError as error:
            raise BadUrlError(f"not a URL: got {shown(location)}") from error
        return Target.parse(joined)

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read a URL.

        Raises:
            BadUrlError: it is not an http(s) URL that we accept; says why.
        """
        if plain := _PLAIN.fullmatch(url):
            return cls(*_origin(plain[1]), plain[2])
        return cls._parse(url)

    @classmethod
    def _parse(cls, url: str) -> Target:
        _refuse_forbidden(url)
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname or ""
        except ValueError as error:
            raise BadUrlError(f"not a URL: got {shown(url)}") from error  # whose text may have a piece of a password
        if parts.scheme not in _DEFAULT_PORTS:
            raise BadUrlError(f"expected http or https, got {shown(url)}")
        if "@" in parts.netloc:
            raise BadUrlError("expected a URL without user and password")  # which are not repeated here
        if "[" in parts.netloc and ":" not in host:
            raise BadUrlError(f"expected an IPv6 address in brackets, got {shown(url)}")
        if port == 0:
            raise BadUrlError(f"expected a port from 1 to 65535, got {shown(url)}")
        path = quote(parts.path or "/", safe=_PATH_SAFE)
        query = "?" + quote(parts.query, safe=_PATH_SAFE + "?[]") if parts.query else ""
        return cls(parts.scheme, _plain_host(host), port or _DEFAULT_PORTS[parts.scheme], path + query)


@lru_cache(1000)  # of a manifest's URLs many have one origin
def _origin(url: str) -> tuple[str, str, int]:
    return Target._parse(f"{url}/").origin


def _refuse_forbidden(url: str) -> None:
    if found := _FORBIDDEN.search(url):
        bare = re.split("[?#;]", url, maxsplit=1)[0]  # a blank may be in the middle of a secret
        raise BadUrlError(f"expected a URL without blanks, controls and backslashes, got {found[0]!r} in {shown(bare)}")


@lru_cache(1000)  # of a manifest's URLs many have one host, and the codec is slow
def _plain_host(host: str) -> str:
    """Lower-case ASCII; an IPv6 literal without its brackets."""
    if ":" in host:
        try:
            return str(IPv6Address(host))  # a zone id stays and is refused by the policy
        except ValueError as error:
            raise BadUrlError(f"not an IPv6 address: {host!r}") from error
    try:
        ascii_host = host.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise BadUrlError(f"not a host name: {host!r}") from error
    if not _HOST.fullmatch(ascii_host):
        raise BadUrlError(f"not a host name: {host!r}")
    return ascii_host


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator allows beyond the public Internet."""

    hosts: frozenset[str] = frozenset()  # names whose private addresses are allowed
    networks: tuple[Network, ...] = ()  # allowed whatever the table says
    ports: frozenset[int] = field(default_factory=lambda: frozenset({80, 443, 8000, 8080, 8443}))  # empty: every port

    @classmethod
    def from_settings(cls, settings: Settings) -> AddressPolicy:
        """
        Raises:
            ValueError: a network is none.
        """
        return cls(
            frozenset(host.lower().rstrip(".") for host in settings.allow_hosts),
            tuple(ip_network(text, strict=False) for text in sorted(settings.allow_networks)),
            settings.allow_ports,
        )

    def admit(self, target: Target) -> None:
        """What can be judged before resolving.

        Raises:
            RefusedError: the port, or the host by its name.
        """
        if self.ports and target.port not in self.ports:
            raise RefusedError(f"port {target.port} is not allowed{_allow('PORTS', self.ports, target.port)}")
        name = target.host.rstrip(".")
        if name in _METADATA_HOSTS and name not in self.hosts:
            raise RefusedError(f"host {name} serves cloud metadata{_allow('HOSTS', self.hosts, name)}")

    def judge(self, host: str, text: str) -> Address:
        """Judge one resolved address of a host.

        Raises:
            RefusedError: it is not allowed; says which rule.
        """
        if "%" in text:
            raise RefusedError(f"{host} is {text}: an address with a zone")
        address = ip_address(text)
        if any(address in network for network in self.networks):
            return address
        rule, private = _rule_against(address)
        if rule is not None and not (private and host.rstrip(".") in self.hosts):
            by_name = private and host != text
            how = _allow("HOSTS", self.hosts, host) if by_name else _allow("NETWORKS", self.networks, address)
            raise RefusedError(f"{host} is {address}: {rule}{how}")
        return address


def _allow(name: str, have: Iterable[object], more: object) -> str:
    """How an operator allows it: the setting as it would be, and the command that follows."""
    listed = ",".join([*sorted(map(str, have), key=lambda each: (len(each), each)), str(more)])
    return f"; workers with DOWNPOUR_ALLOW_{name}={listed} allow it, then `producer retry BATCH --kind refused`"


def is_below(host: str, names: Iterable[str]) -> bool:
    """Whether a host has one of these names, or one that ends in a dot and one of them."""
    name = host.rstrip(".")
    return any(name == each or name.endswith(f".{each}") for each in names)


def _rule_against(address: Address) -> tuple[str | None, bool]:
    """The name of the rule that denies an address, and whether that rule is a private one."""
    for network, name, private in _RULES:
        if address in network:
            return f"{name} ({network})", private
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_6:
            return f"not global unicast ({_GLOBAL_6})", False
        # ISATAP: an IPv4 address in the clothes of an interface identifier.
        if (int(address) >> 32) & 0xFDFF_FFFF == 0x5EFE:
            return "an embedded IPv4 address (ISATAP)", False
    if _is_own(address):
        return "an address of this machine", True
    return None, False


def _is_own(address: Address) -> bool:
    """Whether an interface here has it: the kernel would use it as its own source. Sends nothing."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            return bool(ip_address(probe.getsockname()[0]) == address)
        except OSError:
            return False  # no route: connecting will say so
