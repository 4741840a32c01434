"""Environment variables: each wrong value gets a message that names it."""

from __future__ import annotations

import re

import pytest

from cloudsignal.config import Address, ConfigError, Environment


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("127.0.0.1:1883", Address("127.0.0.1", 1883)),
        ("localhost:1", Address("localhost", 1)),
        ("[::1]:1883", Address("::1", 1883)),
        ("10.1.2.3:1883", Address("10.1.2.3", 1883)),
        ("192.168.0.9:1883", Address("192.168.0.9", 1883)),
        ("off", None),
    ],
)
def test_a_private_address_is_accepted_for_plaintext(value: str, expected: Address | None) -> None:
    assert Environment({"EDGE_PLAINTEXT": value}).address("EDGE_PLAINTEXT", "off", private=True) == expected


@pytest.mark.parametrize("value", ["0.0.0.0:1883", "[::]:1883", "8.8.8.8:1883", "example.com:1883", "[2606::1]:1883"])
def test_a_public_address_is_refused_for_plaintext(value: str) -> None:
    with pytest.raises(ConfigError, match=r"EDGE_PLAINTEXT.*loopback or private"):
        Environment({"EDGE_PLAINTEXT": value}).address("EDGE_PLAINTEXT", "off", private=True)


@pytest.mark.parametrize("value", ["8883", "host:", ":8883", "host:port", "host:70000", "host:-1"])
def test_an_address_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"EDGE_MQTTS.*host:port"):
        Environment({"EDGE_MQTTS": value}).address("EDGE_MQTTS", "0.0.0.0:8883")


def test_a_unix_socket_upstream() -> None:
    assert Environment({"MQTT_UPSTREAM_URL": "unix:///run/b.sock"}).upstream().path == "/run/b.sock"


def test_a_tls_upstream_with_its_options() -> None:
    upstream = Environment(
        {"MQTT_UPSTREAM_URL": "mqtts://:s%40@broker:8884?ca=/a.pem&cert=/c.pem&key=/k.pem"}
    ).upstream()
    assert (upstream.hosts, upstream.password) == ((Address("broker", 8884),), "s@")
    assert (upstream.ca_file, upstream.cert_file, upstream.key_file) == ("/a.pem", "/c.pem", "/k.pem")


def test_an_upstream_of_several_nodes_with_the_address_that_says_how_they_are() -> None:
    upstream = Environment(
        {"MQTT_UPSTREAM_URL": "mqtts://:p@A:8884,b,[::1]:8885,10.0.0.5,a:8884?status=http://{host}:8888&keepalive=10"}
    ).upstream()
    assert upstream.hosts == (Address("a", 8884), Address("b", 8883), Address("::1", 8885), Address("10.0.0.5", 8883))
    assert (upstream.password, upstream.status, upstream.keep_alive) == ("p", "http://{host}:8888", 10)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("mqtts://a:1,,b:1", '"" is no address'),
        ("mqtts://a:1,::1", '"::1" is no address'),
        ("mqtts://a:1,[zz]:1", "no address"),
        ("mqtts://a b", "no address"),
        ("mqtts://a/b", "no address"),
        ("mqtts://a:", "no address"),
        ("mqtts://a:0", 'port of "a:0"'),
        ("mqtts://a:70000", 'port of "a:70000"'),
        ("mqtts://" + ",".join(f"h{number}" for number in range(33)), "names 33 brokers; at most 32"),
        ("mqtts://a?keepalive=2", "seconds from 3 to 600"),
        ("mqtts://a?keepalive=x", "seconds from 3 to 600"),
        ("mqtts://a?status=host:8888", "write http"),
        ("mqtts://a?status=https://host:8888", "without TLS"),
        ("unix://b.sock", "unix:///path"),
    ],
)
def test_a_wrong_upstream_is_refused_with_what_is_wrong(value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"MQTT_UPSTREAM_URL.*{re.escape(said)}"):
        Environment({"MQTT_UPSTREAM_URL": value}).upstream()


@pytest.mark.parametrize("value", ["mqtt://host:1883", "tcp://host:1883", "host", "unix://", "mqtts://", "mqtts://h:x"])
def test_an_upstream_without_tls_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="MQTT_UPSTREAM_URL"):
        Environment({"MQTT_UPSTREAM_URL": value}).upstream()


def test_an_unknown_upstream_option_is_named() -> None:
    with pytest.raises(ConfigError, match="insecure"):
        Environment({"MQTT_UPSTREAM_URL": "mqtts://h:1?insecure=1"}).upstream()


@pytest.mark.parametrize("value", ["", "zz", "00" * 31, "00" * 33])
def test_a_key_of_the_wrong_form_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Environment({"CLOUDSIGNAL_PEPPER": value}).key("CLOUDSIGNAL_PEPPER")
    assert "CLOUDSIGNAL_PEPPER" in str(caught.value)
    assert not value or value not in str(caught.value)


def test_a_missing_variable_says_what_it_is_for() -> None:
    with pytest.raises(ConfigError, match=r"REDIS_URL is not set.*Valkey"):
        Environment({}).text("REDIS_URL")


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("on", True), ("no", False), ("", False)])
def test_flags(value: str, expected: bool) -> None:
    assert Environment({"CLOUDSIGNAL_DEBUG": value}).flag("CLOUDSIGNAL_DEBUG") is expected


def test_a_wrong_flag_or_number_is_an_error() -> None:
    with pytest.raises(ConfigError, match="write 1 or 0"):
        Environment({"CLOUDSIGNAL_DEBUG": "maybe"}).flag("CLOUDSIGNAL_DEBUG")
    with pytest.raises(ConfigError, match="between 1 and 9"):
        Environment({"N": "12"}).number("N", 1, low=1, high=9)
    with pytest.raises(ConfigError, match="whole number"):
        Environment({"N": "x"}).number("N", 1, low=1, high=9)
