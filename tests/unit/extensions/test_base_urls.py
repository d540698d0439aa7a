"""Which base URLs and addresses a provider may ask: nothing that one parser reads so and another so."""

from __future__ import annotations

import pytest

from beamline_extensions.model_api.addresses import AddressRule, NetworksError, first_fault, parse_networks
from beamline_extensions.model_api.base_url import BaseUrlError, allowed, parse, parse_list
from beamline_extensions.model_api.place import Places
from beamline_sdk import NotReadyError

REFUSED = {
    "metadata service as hexadecimal": "http://0xa9fea9fe/",
    "loopback in two parts, one hexadecimal": "http://0x7f.1/",
    "loopback as one decimal number": "http://2130706433/",
    "loopback in octal": "http://0177.0.0.1/",
    "loopback in two parts": "http://127.1/",
    "loopback with a leading zero": "http://127.0.0.01/",
    "five parts": "http://1.2.3.4.5/",
    "a part above 255": "http://127.0.0.256/",
    "a user name that looks like the host": "https://api.openai.com@evil.example/",
    "a user name and password": "https://api.openai.com:443@evil.example/v1",
    "a backslash before the at": "https://api.openai.com\\@evil.example/",
    "a dot at the end": "https://api.openai.com./v1",
    "full-width letters": "https://\uff41\uff50\uff49.openai.com/v1",
    "a Cyrillic letter": "https://\u0430pi.openai.com/v1",
    "an ideographic full stop": "https://api。openai。com/v1",
    "circled digits": "http://①②⑦.⓪.⓪.①/",
    "a percent sign in the host": "https://api%2eopenai.com/v1",
    "a percent sign in the path": "https://api.openai.com/%2e%2e/",
    "a dotted path": "https://api.openai.com/v1/../admin",
    "a query": "https://api.openai.com/v1?x=",
    "a fragment": "https://api.openai.com/v1#@evil.example",
    "a line break": "https://api.openai.com/v1\r\nx: y",
    "a tab": "https://api.open\tai.com/v1",
    "a blank in front": " https://api.openai.com/v1",
    "no scheme": "api.openai.com/v1",
    "another scheme": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_",
    "upper-case scheme": "HTTPS://api.openai.com/v1",
    "no host": "https:///v1",
    "port 0": "https://api.openai.com:0/v1",
    "port 65536": "https://api.openai.com:65536/v1",
    "an empty port": "https://api.openai.com:/v1",
    "an IPv6 address with a zone": "http://[fe80::1%25eth0]/",
    "an IPv6 address that is none": "http://[::ffff]x/",
    "empty": "",
    "beyond 512 characters": "https://api.openai.com/" + "a" * 500,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_a_base_url_with_two_readings_is_refused(text: str) -> None:
    with pytest.raises(BaseUrlError):
        parse(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://api.openai.com/v1/", "https://api.openai.com/v1"),
        ("https://API.OpenAI.com:443/v1", "https://api.openai.com/v1"),
        ("http://10.1.2.3:8000/v1", "http://10.1.2.3:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]"),
        ("http://vllm.models.svc.cluster.local:8000/v1", "http://vllm.models.svc.cluster.local:8000/v1"),
    ],
)
def test_a_base_url_is_normalised(text: str, read: str) -> None:
    assert str(parse(text)) == read


@pytest.mark.parametrize(
    ("wanted", "yes"),
    [
        ("https://llm.example/v1", True),
        ("https://llm.example/v1/tenant", True),
        ("https://llm.example:443/v1", True),
        ("https://llm.example/v10", False),
        ("https://llm.example/", False),
        ("http://llm.example/v1", False),
        ("https://llm.example:8443/v1", False),
        ("https://x.llm.example/v1", False),
        ("https://llm.example.evil.example/v1", False),
    ],
)
def test_the_list_is_about_scheme_host_port_and_the_paths_beginning(wanted: str, yes: bool) -> None:
    assert allowed(parse(wanted), parse_list("https://llm.example/v1, http://other:1")) is yes


FORBIDDEN = {
    "the metadata service": "169.254.169.254",
    "the metadata service, IPv4-mapped": "::ffff:169.254.169.254",
    "the metadata service, IPv4-compatible": "::169.254.169.254",
    "the metadata service behind NAT64": "64:ff9b::a9fe:a9fe",
    "the metadata service as 6to4": "2002:a9fe:a9fe::1",
    "the metadata service over IPv6": "fd00:ec2::254",
    "Alibaba's metadata service": "100.100.100.200",
    "Azure's platform service": "168.63.129.16",
    "link-local IPv6": "fe80::1",
    "link-local IPv6 with a zone": "fe80::1%eth0",
    "unspecified": "0.0.0.0",
    "unspecified IPv6": "::",
    "multicast": "224.0.0.1",
    "broadcast": "255.255.255.255",
    "no address": "localhost",
}
PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback elsewhere": "127.8.9.10",
    "loopback IPv6": "::1",
    "loopback, IPv4-mapped": "::ffff:127.0.0.1",
    "loopback as 6to4": "2002:7f00:1::",
    "ten": "10.0.0.1",
    "one-seven-two": "172.31.255.255",
    "one-nine-two": "192.168.1.1",
    "shared": "100.64.0.1",
    "unique local": "fd12::1",
    "ten, IPv4-mapped": "::ffff:10.0.0.1",
}


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_some_addresses_are_never_connected_to(address: str) -> None:
    everything = AddressRule(parse_networks("private,0.0.0.0/0,::/0"), frozenset(FORBIDDEN.values()))
    assert everything.fault(address) is not None


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE.keys())
def test_private_addresses_need_the_operators_word(address: str) -> None:
    assert AddressRule().fault(address) == "a private address"
    assert AddressRule(parse_networks("private")).fault(address) is None


def test_public_addresses_are_fine_and_one_bad_answer_spoils_all() -> None:
    rule = AddressRule()
    assert first_fault(rule, ["104.18.7.192", "2606:4700::6812:7c0"]) is None
    assert first_fault(rule, ["104.18.7.192", "127.0.0.1"]) == "a private address"


def test_networks_are_read_or_named() -> None:
    assert AddressRule(parse_networks("10.1.0.0/16")).fault("10.1.2.3") is None
    assert AddressRule(parse_networks("10.1.0.0/16")).fault("10.2.2.3") is not None
    with pytest.raises(NetworksError, match=r"10\.1\.2\.3/16"):
        parse_networks("10.1.2.3/16")


def test_a_place_must_be_on_the_list_and_an_address_on_it_opens_only_itself() -> None:
    places = Places(
        {"BEAMLINE_ALLOWED_BASE_URLS": "http://10.0.0.7:8000/v1"}, "X", "https://api.openai.com/v1"
    )
    assert str(places.of(None)) == "https://api.openai.com/v1"
    assert places.of("http://10.0.0.7:8000/v1").host == "10.0.0.7"
    assert places.rule.fault("10.0.0.7") is None
    assert places.rule.fault("10.0.0.8") is not None
    for other in (
        "http://10.0.0.8:8000/v1",
        "http://169.254.169.254/latest",
        "https://api.openai.com.evil.example/v1",
    ):
        with pytest.raises(BaseUrlError, match="BEAMLINE_ALLOWED_BASE_URLS"):
            places.of(other)


def test_the_metadata_service_can_not_even_be_listed() -> None:
    places = Places({"BEAMLINE_ALLOWED_BASE_URLS": "http://169.254.169.254"}, "X", None)
    with pytest.raises(BaseUrlError, match="link-local"):
        places.of("http://169.254.169.254/latest")
    with pytest.raises(BaseUrlError, match=r"config\.base_url is missing"):
        places.of(None)


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(NotReadyError, match="InvalidBaseUrl: OPENAI_BASE_URL"):
        Places({"OPENAI_BASE_URL": "https://u:p@x/"}, "OPENAI_BASE_URL", None)
