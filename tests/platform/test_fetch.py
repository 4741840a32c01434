"""Which addresses a tenant may send the control plane to."""

from __future__ import annotations

import ipaddress

import pytest
from django.conf import LazySettings

from cloudsignal.fetch import is_reachable

REFUSED = {
    "loopback": ["127.0.0.1", "127.8.9.1", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],  # noqa: S104 - an address to refuse
    "private": ["10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fec0::1"],
    "link-local, metadata services": ["169.254.169.254", "fe80::1", "fd00:ec2::254"],
    "multicast, reserved, broadcast": ["224.0.0.1", "240.0.0.1", "255.255.255.255", "ff02::1", "4000::1"],
    "protocol assignments": ["192.0.0.8", "192.0.0.170", "192.88.99.1", "198.18.0.1", "2001:20::1", "2620:4f:8000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "discard-only, segment routing": ["100::1", "5f00::1"],
    "IPv4-mapped": ["::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8"],
    "IPv4-compatible": ["::127.0.0.1", "::169.254.169.254", "::10.0.0.1", "::8.8.8.8"],
    "IPv4-translated": ["::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"],
    "NAT64": ["64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1"],
    "NAT64 of a network of its own": ["64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1"],
    "Teredo": ["2001:0:7f00:1::", "2001:0:808:808::f7f7:f7f7"],
    "ISATAP": ["2a00:1450::5efe:127.0.0.1", "2a00:1450::200:5efe:10.0.0.1", "fe80::5efe:8.8.8.8"],
}


@pytest.mark.parametrize("form", REFUSED)
def test_no_form_of_an_address_leads_inside(form: str) -> None:
    assert [text for text in REFUSED[form] if is_reachable(ipaddress.ip_address(text))] == []


@pytest.mark.parametrize("text", ["8.8.8.8", "2a00:1450:4001:82a::200e", "64:ff9b::8.8.8.8", "2a00:1450::5efe:8.8.8.8"])
def test_public_addresses_are_reached_and_nat64_goes_by_the_address_inside(text: str) -> None:
    assert is_reachable(ipaddress.ip_address(text))


def test_a_named_network_is_reached_and_no_other_form_of_it(settings: LazySettings) -> None:
    settings.PROVIDER_NETWORKS = "10.1.0.0/16, fd12::/16"
    assert is_reachable(ipaddress.ip_address("10.1.2.3"))
    assert is_reachable(ipaddress.ip_address("fd12::1"))
    assert not is_reachable(ipaddress.ip_address("::10.1.2.3"))
    assert not is_reachable(ipaddress.ip_address("2002:a01:203::1"))
