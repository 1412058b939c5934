"""The address policy beside two others: nothing that either of them denies is allowed by ours.

Wherever the three disagree, ours is the stricter one. The examples are the edges of everybody's networks, where a
mistake in a table shows, and random addresses.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
import ssrfguard
from AntiSSRF import ipaddress_ranges as ranges
from hypothesis import given
from hypothesis import strategies as st

from download.addresses import _RULES, Address, AddressPolicy, Network
from download.errors import RefusedError

Denies = Callable[[Address], bool]
ANTISSRF: list[Network] = [ip_network(text) for text in ranges.IPAddressRanges.recommended_latest]
SSRFGUARD = ssrfguard.DEFAULT_DENIED
EMBEDDING = ("64:ff9b::", "64:ff9b:1::", "2002:{:x}:{:x}::", "::ffff:0:0", "::", "2001::", "fe80::5efe:0:0")


def ours(address: Address) -> bool:
    try:
        AddressPolicy().judge("host.example", str(address))
    except RefusedError:
        return True
    return False


def antissrf(address: Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in ANTISSRF)


def guard(address: Address) -> bool:
    return bool(SSRFGUARD.classify(address).blocked)


OTHERS = pytest.mark.parametrize("theirs", [antissrf, guard])


def edges() -> list[Address]:
    networks = [*ANTISSRF, *(block.network for block in SSRFGUARD.blocks), *(rule[0] for rule in _RULES)]
    found: set[Address] = set()
    for network in networks:
        kind = type(network.network_address)
        for number in (int(network.network_address), int(network.broadcast_address)):
            around = (number - 1, number, number + 1)
            found.update(kind(each) for each in around if 0 <= each < 2**network.max_prefixlen)
    return sorted(found, key=lambda address: (address.version, int(address)))


@OTHERS
def test_at_the_edges_of_every_network_ours_denies_what_they_deny(theirs: Denies) -> None:
    examples = edges()
    assert len(examples) > 250
    assert [str(address) for address in examples if theirs(address) and not ours(address)] == []


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_of_random_addresses_ours_denies_what_they_deny(address: Address) -> None:
    assert ours(address) or not (antissrf(address) or guard(address))


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDING))
def test_an_ipv4_address_in_the_clothes_of_an_ipv6_one_gains_nothing(inner: IPv4Address, prefix: str) -> None:
    if "{" in prefix:
        address = ip_address(prefix.format(int(inner) >> 16, int(inner) & 0xFFFF))
    else:
        address = IPv6Address(int(IPv6Address(prefix)) | int(inner))
    assert ours(address) or not (antissrf(address) or guard(address) or ours(inner))


def test_all_three_let_the_public_internet_through() -> None:
    for text in ("1.1.1.1", "8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::1"):
        address = ip_address(text)
        assert (ours(address), antissrf(address), guard(address)) == (False, False, False), text
