"""Who counts as somebody: locality, the printed token, sessions, roles."""

from __future__ import annotations

import pytest

from beamline_admin.identity import (
    MAX_SESSIONS,
    SESSION_S,
    Authenticator,
    Client,
    Identity,
    LoopbackToken,
    Role,
    Sessions,
    bearer_of,
    client_of,
)

HERE = Client("127.0.0.1", "127.0.0.1")
ELSEWHERE = Client("10.1.2.3", "127.0.0.1")
TOKEN = "a-token-of-decent-length"


@pytest.mark.parametrize(
    ("client", "local"),
    [
        pytest.param(HERE, True, id="IPv4 loopback"),
        pytest.param(Client("127.8.8.8", "127.8.8.8"), True, id="any address of 127/8"),
        pytest.param(Client("::1", "::1"), True, id="IPv6 loopback"),
        pytest.param(
            Client("::ffff:127.0.0.1", "localhost"), True, id="IPv4 loopback on a dual-stack socket"
        ),
        pytest.param(Client("127.0.0.1", "localhost"), True, id="by the name localhost"),
        pytest.param(ELSEWHERE, False, id="another machine of the network"),
        pytest.param(Client("::ffff:10.1.2.3", "localhost"), False, id="another machine, IPv4 in IPv6"),
        pytest.param(Client("127.0.0.1", "evil.example"), False, id="a name that was rebound to loopback"),
        pytest.param(
            Client("127.0.0.1", "localhost.evil.example"), False, id="a name that begins with localhost"
        ),
        pytest.param(
            Client("127.0.0.1", "localhost", forwarded=True), False, id="through a proxy on this machine"
        ),
        pytest.param(Client("", "localhost"), False, id="an unknown peer"),
        pytest.param(Client("127.0.0.1", ""), False, id="no host"),
        pytest.param(Client("not an address", "localhost"), False, id="a peer that is no address"),
    ],
)
def test_only_this_machine_asking_for_itself_is_local(client: Client, local: bool) -> None:
    assert client.local is local


def scope(
    *headers: tuple[bytes, bytes], client: tuple[str, int] | None = ("127.0.0.1", 5)
) -> dict[str, object]:
    return {"type": "http", "client": client, "headers": list(headers)}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([(b"host", b"LocalHost:8081")], Client("127.0.0.1", "localhost"), id="name and port"),
        pytest.param([(b"host", b"[::1]:8081")], Client("127.0.0.1", "::1"), id="bracketed IPv6"),
        pytest.param([], Client("127.0.0.1", ""), id="no Host header"),
        pytest.param(
            [(b"host", b"localhost"), (b"host", b"x")], Client("127.0.0.1", ""), id="two Host headers"
        ),
        pytest.param(
            [(b"host", b"localhost"), (b"x-forwarded-for", b"127.0.0.1")],
            Client("127.0.0.1", "localhost", forwarded=True),
            id="X-Forwarded-For, whatever it claims",
        ),
        pytest.param(
            [(b"host", b"localhost"), (b"forwarded", b"for=127.0.0.1")],
            Client("127.0.0.1", "localhost", forwarded=True),
            id="Forwarded",
        ),
    ],
)
def test_the_client_is_read_from_the_connection_and_the_host_header(
    headers: list[tuple[bytes, bytes]], expected: Client
) -> None:
    assert client_of(scope(*headers)) == expected


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        pytest.param([(b"authorization", b"Bearer abc")], "abc", id="the usual"),
        pytest.param([(b"authorization", b"bEARER abc")], "abc", id="scheme in any case"),
        pytest.param([], None, id="none"),
        pytest.param([(b"authorization", b"Basic YTpi")], None, id="another scheme"),
        pytest.param([(b"authorization", b"Bearer ")], None, id="an empty token"),
        pytest.param(
            [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")], None, id="two headers"
        ),
    ],
)
def test_a_bearer_token_is_read_from_exactly_one_header(
    headers: list[tuple[bytes, bytes]], token: str | None
) -> None:
    assert bearer_of(scope(*headers)) == token


@pytest.mark.parametrize(
    ("token", "client", "accepted"),
    [
        pytest.param(TOKEN, HERE, True, id="right token from this machine"),
        pytest.param(TOKEN, ELSEWHERE, False, id="right token from elsewhere"),
        pytest.param(TOKEN + "x", HERE, False, id="longer token"),
        pytest.param(TOKEN[:-1], HERE, False, id="shorter token"),
        pytest.param("", HERE, False, id="empty token"),
        pytest.param("\udcff", HERE, False, id="a token that is no text"),
    ],
)
async def test_the_printed_token_works_on_this_machine_only(
    token: str, client: Client, accepted: bool
) -> None:
    identity = await LoopbackToken(TOKEN).verify(token, client)
    assert (identity is not None) is accepted
    assert identity is None or identity.local_only


async def test_the_first_verifier_that_knows_a_token_decides_and_nobody_is_somebody_without_one() -> None:
    viewer = LoopbackToken(TOKEN, Role.VIEWER)
    assert await Authenticator([]).verify(TOKEN, HERE) is None
    found = await Authenticator([LoopbackToken("another-long-token"), viewer, LoopbackToken(TOKEN)]).verify(
        TOKEN, HERE
    )
    assert found is not None
    assert found.role is Role.VIEWER


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Known:
    """Knows the tokens that a test states."""

    def __init__(self, **tokens: Identity) -> None:
        self.tokens = tokens

    async def verify(self, token: str, client: Client) -> Identity | None:
        return self.tokens.get(token)


async def test_a_session_ends_with_its_time_its_logout_or_its_place() -> None:
    clock = Clock()
    bob = Identity("bob", Role.VIEWER)
    sessions = Sessions(clock, Authenticator([LoopbackToken(TOKEN), Known(bobs=bob)]))
    mine, theirs = sessions.open(TOKEN), sessions.open("bobs")
    assert await sessions.verify(mine, HERE) == Identity("local", Role.ADMIN, local_only=True)
    assert await sessions.verify(mine, ELSEWHERE) is None, "a local identity stays local in its session"
    assert await sessions.verify(theirs, ELSEWHERE) == bob
    sessions.close(mine)
    sessions.close("never opened")
    assert await sessions.verify(mine, HERE) is None
    clock.now += SESSION_S
    assert await sessions.verify(theirs, HERE) is None


async def test_a_session_may_no_more_than_its_token_may_now_and_ends_with_it() -> None:
    known = Known(bobs=Identity("bob", Role.ADMIN))
    sessions = Sessions(Clock(), known)
    secret = sessions.open("bobs")
    known.tokens["bobs"] = Identity("bob", Role.VIEWER)
    found = await sessions.verify(secret, HERE)
    assert found is not None
    assert found.role is Role.VIEWER
    known.tokens.clear()
    assert await sessions.verify(secret, HERE) is None


async def test_sessions_are_bounded_and_the_oldest_makes_room() -> None:
    sessions = Sessions(Clock(), Known(adas=Identity("ada", Role.VIEWER)))
    secrets = [sessions.open("adas") for _ in range(MAX_SESSIONS + 1)]
    assert len(set(secrets)) == MAX_SESSIONS + 1
    assert await sessions.verify(secrets[0], HERE) is None
    assert await sessions.verify(secrets[-1], HERE) is not None


@pytest.mark.parametrize("role", Role)
def test_each_role_may_what_the_ones_before_it_may(role: Role) -> None:
    order = list(Role)
    assert [role.covers(wanted) for wanted in order] == [
        order.index(wanted) <= order.index(role) for wanted in order
    ]
