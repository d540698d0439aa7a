"""What a session's cookie may do under /api/: what our own pages ask for, and nothing that anybody else makes
a browser send."""

from __future__ import annotations

from typing import Any

import pytest

from beamline_admin.gate import SESSION_COOKIE
from beamline_admin.page_calls import HEADER, page_word

OURS = {"origin": "http://127.0.0.1:8081", "sec-fetch-site": "same-origin"}
EXPLAIN = {"request": {"prompt": "x"}}
SPEC = {"name": "new", "spec": {"type": "pre"}}


async def secret_of(admin: Any) -> str:
    async with admin.client(token=None) as client:
        await client.post("/login", content=f"token={admin.token}")
        return str(client.cookies[SESSION_COOKIE])


async def call(admin: Any, secret: str, method: str, headers: dict[str, str], **how: Any) -> Any:
    async with admin.client(token=None, cookies={SESSION_COOKIE: secret}, **how) as client:
        path, body = ("registry", None) if method == "GET" else ("extensions/validate", SPEC)
        return await client.request(method, f"/api/v1/{path}", json=body, headers=headers)


READS = [
    pytest.param(OURS, 200, id="one of our pages"),
    pytest.param({}, 200, id="a browser that does not say who asks"),
    pytest.param({"sec-fetch-site": "none"}, 200, id="a person, by the address bar"),
    pytest.param({"sec-fetch-site": "same-site"}, 401, id="a page on another port of this machine"),
    pytest.param({"sec-fetch-site": "cross-site"}, 401, id="a page of another site"),
    pytest.param({"authorization": "Bearer wrong"}, 401, id="a wrong token beside the cookie"),
]
CHANGES = [
    pytest.param({}, True, id="one of our pages"),
    pytest.param({HEADER: ""}, False, id="no word"),
    pytest.param({HEADER: page_word("another session")}, False, id="the word of another session"),
    pytest.param({HEADER: b"\xff"}, False, id="a word that is no text"),
    pytest.param({"origin": ""}, False, id="no origin"),
    pytest.param({"origin": "null"}, False, id="a page without an origin"),
    pytest.param({"origin": "http://127.0.0.1:9999"}, False, id="the origin of another port"),
    pytest.param({"origin": "http://evil.example"}, False, id="the origin of another site"),
    pytest.param({"origin": "ftp://127.0.0.1:8081"}, False, id="an origin that is no page"),
    pytest.param({"sec-fetch-site": "same-site"}, False, id="a browser that says it is another port"),
    pytest.param({"sec-fetch-site": "cross-site"}, False, id="a browser that says it is another site"),
]


@pytest.mark.parametrize(("headers", "status"), READS)
async def test_the_cookie_reads_for_our_own_pages_alone(
    admin: Any, headers: dict[str, str], status: int
) -> None:
    secret = await secret_of(admin)
    assert (await call(admin, secret, "GET", headers)).status_code == status


@pytest.mark.parametrize(("headers", "passes"), CHANGES)
async def test_the_cookie_changes_for_our_own_pages_alone(
    admin: Any, headers: dict[str, Any], passes: bool
) -> None:
    secret = await secret_of(admin)
    sent = {**OURS, HEADER: page_word(secret), **headers}
    answer = await call(admin, secret, "POST", {name: value for name, value in sent.items() if value})
    # 503: passed, but this application was not told where objects live
    assert answer.status_code == (503 if passes else 401), answer.text


async def test_a_session_that_ended_reads_nothing(admin: Any) -> None:
    secret = await secret_of(admin)
    async with admin.client(token=None, cookies={SESSION_COOKIE: secret}) as client:
        await client.post("/logout")
    assert (await call(admin, secret, "GET", OURS)).status_code == 401


async def test_a_session_of_this_machine_opens_no_api_elsewhere(admin: Any) -> None:
    secret = await secret_of(admin)
    assert (await call(admin, secret, "GET", OURS, host="10.1.2.3")).status_code == 401
