"""The socket of a server: whom it lets in, and what is said where it can't be had."""

from __future__ import annotations

import socket

import pytest

from beamline_sdk.listening import ListenError, listen


@pytest.mark.parametrize(
    ("host", "client"),
    [
        pytest.param("127.0.0.1", "127.0.0.1", id="an address"),
        pytest.param("0.0.0.0", "127.0.0.1", id="all of IPv4"),
        pytest.param("::1", "::1", id="an address of IPv6"),
        pytest.param("::", "::1", id="all of IPv6"),
        pytest.param("::", "127.0.0.1", id="all of IPv6, from IPv4"),
    ],
)
def test_clients_of(host: str, client: str) -> None:
    with listen(host, 0, purpose="HTTP", backlog=1) as bound:
        assert not bound.getblocking()
        with socket.create_connection((client, bound.getsockname()[1]), timeout=5):
            pass


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        pytest.param("127.0.0.1", 0, "is taken: stop what listens there, or choose another port", id="taken"),
        pytest.param("192.0.2.1", 1, "can't be used: ", id="an address of somebody else"),
        pytest.param("no.such.host.invalid", 1, "can't be used: ", id="no address"),
    ],
)
def test_what_can_not_be_had_is_one_sentence(host: str, port: int, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = port or other.getsockname()[1]
        with pytest.raises(ListenError) as raised:
            listen(host, port, purpose="HTTP", backlog=1)
    assert str(raised.value).startswith(f"{host}:{port} for HTTP {said}")
    assert "\n" not in str(raised.value)
