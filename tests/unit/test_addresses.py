"""Which URLs and addresses may be downloaded from."""

import socket
from ipaddress import ip_address, ip_network

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from download.addresses import AddressPolicy, Target
from download.errors import BadUrlError, RefusedError
from ledger.settings import Settings

OPEN = AddressPolicy(ports=frozenset())


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://Example.ORG", Target("http", "example.org", 80, "/")),
        ("https://example.org/a?b=c#d", Target("https", "example.org", 443, "/a?b=c")),
        ("http://example.org:8080/%41/ä?ö", Target("http", "example.org", 8080, "/%41/%C3%A4?%C3%B6")),
        ("http://bücher.example/", Target("http", "xn--bcher-kva.example", 80, "/")),
        ("http://[2001:DB8::1]:8080/", Target("http", "2001:db8::1", 8080, "/")),
        ("http://example.org./", Target("http", "example.org.", 80, "/")),
        ("http://example.org?x", Target("http", "example.org", 80, "/?x")),
    ],
)
def test_a_url_is_read_once_and_whole(url: str, target: Target) -> None:
    assert Target.parse(url) == target
    assert Target.parse(target.url) == target


NO_URLS = [
    "", "example.org", "ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "http://", "http:///path",
    "http://user@example.org/", "http://user:password@example.org/", "http://@example.org/",
    "http://127.0.0.1\\@good.example/", "http://example.org/a b", "http://example.org/\r\nHost: evil",
    "http://example.org/\x00", "http://exam\tple.org/", "http://example.org:99999/", "http://example.org:0/",
    "http://example.org:-1/", "http://example.org:http/", "http://[::1/", "http://[not-an-address]/",
    "http://[v1.x]/", "http://a..b/", "http://exa%6dple.org/", "http://exam^ple.org/", f"http://{'a' * 64}.org/",
    f"http://{'a.' * 127}aa/",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_URLS)
def test_what_is_no_acceptable_url_is_said_so(url: str) -> None:
    with pytest.raises(BadUrlError):
        Target.parse(url)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/b", "http://h:81/b"),
        ("b", "http://h:81/a/b"),
        ("//other/b", "http://other/b"),
        ("https://other/b", "https://other/b"),
        ("?q", "http://h:81/a/x?q"),
        ("../../../b", "http://h:81/b"),
    ],
)
def test_a_location_is_read_relative_to_where_it_came_from(location: str, url: str) -> None:
    assert Target.parse("http://h:81/a/x").join(location).url == url


DENIED = [
    "0.0.0.1", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.0.1",
    "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.171",
    "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.175.48.1", "198.18.0.1",
    "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1",
    "2001::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2620:4f:8000::1", "3fff::1", "4000::1", "5f00::1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
    "2a00:1450::5efe:7f00:1", "2a00:1450::200:5efe:a00:1",
]  # fmt: skip
ALLOWED = [
    "8.8.8.8", "1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0",
    "192.0.1.0", "192.0.3.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "2a00:1450:4001::1", "2606:4700::1111",
    "2001:200::1", "2620:4f:8001::1",
]  # fmt: skip


@pytest.mark.parametrize("address", DENIED)
def test_what_is_not_public_is_denied_and_the_rule_named(address: str) -> None:
    with pytest.raises(RefusedError, match=r"h is .*: "):
        OPEN.judge("h", address)


@pytest.mark.parametrize("address", ALLOWED)
def test_what_is_public_is_allowed(address: str) -> None:
    assert OPEN.judge("h", address) == ip_address(address)


@given(st.ip_addresses())
def test_nothing_is_allowed_that_the_standard_library_calls_not_global(address: object) -> None:
    """The own table is stricter than the library's, never laxer."""
    try:
        judged = OPEN.judge("h", str(address))
    except RefusedError:
        return
    assert judged.is_global
    assert not judged.is_multicast


def test_addresses_of_this_machine_are_denied() -> None:
    for addresses in psutil.net_if_addrs().values():
        for found in addresses:
            if found.family in (socket.AF_INET, socket.AF_INET6):
                with pytest.raises(RefusedError):
                    OPEN.judge("h", found.address)


def test_a_host_allowed_by_name_may_be_private_but_never_metadata() -> None:
    policy = AddressPolicy(hosts=frozenset({"origin"}))
    assert str(policy.judge("origin", "10.0.0.1")) == "10.0.0.1"
    assert str(policy.judge("origin.", "::1")) == "::1"
    for host, address in (("other", "10.0.0.1"), ("origin", "169.254.169.254"), ("origin", "fd00:ec2::254")):
        with pytest.raises(RefusedError):
            policy.judge(host, address)


def test_an_allowed_network_is_allowed_for_everybody() -> None:
    policy = AddressPolicy(networks=(ip_network("10.1.0.0/16"), ip_network("64:ff9b::/96")))
    assert policy.judge("any", "10.1.2.3")
    assert policy.judge("any", "64:ff9b::808:808")
    with pytest.raises(RefusedError, match="private"):
        policy.judge("any", "10.2.0.1")


def test_ports_and_metadata_hosts_are_refused_before_resolving() -> None:
    policy = AddressPolicy(ports=frozenset({80}))
    policy.admit(Target.parse("http://example.org/"))
    for url in ("https://example.org/", "http://metadata.google.internal/", "http://instance-data./"):
        with pytest.raises(RefusedError):
            policy.admit(Target.parse(url))


def test_the_settings_are_the_policy() -> None:
    settings = Settings(allow_hosts="Origin, other.", allow_networks="127.0.0.1/8", allow_ports="80,8080")
    assert AddressPolicy.from_settings(settings) == AddressPolicy(
        frozenset({"origin", "other"}), (ip_network("127.0.0.0/8"),), frozenset({80, 8080})
    )
