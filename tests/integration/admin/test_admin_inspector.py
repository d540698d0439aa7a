"""The inspector's pages: login, what they show, and that nothing in them is ever markup of somebody else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import pytest

from beamline_contract.reports import HealthDelta

XSS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onfocus=alert(1) autofocus='",
    "{{ 7*7 }}{% raw %}",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<!--",
    "]]>",
    "</textarea></style></script><h1>",
]
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "body",
        "header",
        "main",
        "section",
        "article",
        "h1",
        "h2",
        "h3",
    ),
    *("a", "img", "form", "label", "input", "button", "p", "span", "small", "code", "meter", "time"),
    *("dl", "div", "dt", "dd", "ol", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"),
}


class Reader(HTMLParser):
    """Collects what a browser would see: tags, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


@asynccontextmanager
async def logged_in(admin: Any) -> AsyncIterator[Any]:
    async with admin.client(token=None, follow_redirects=True) as client:
        answer = await client.get("/", params={"token": admin.token})
        assert answer.status_code == 200, answer.text
        assert str(answer.url) == "http://127.0.0.1:8081/", "the token left the address"
        yield client


async def page(admin: Any, **query: str) -> str:
    async with logged_in(admin) as client:
        answer = await client.get("/", params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return str(answer.text)


async def test_the_overview_shows_what_runs_and_what_needs_attention(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(
        extension("mock", "provider"),
        extension("guard", "validator", enabled=False),
        policy("default", "mock", ("guard",), fallback=["spare"]),
        by="ada@example.com",
    )
    await admin.registry.fold_health(
        [HealthDelta(extension_id="mock", success=9, failure=1)], epoch=admin.epoch
    )
    text = re.sub(r"\s+", " ", Reader(await page(admin)).text)
    assert "extension mock: health 90 % over the last five minutes" in text
    assert "policy default: guard is disabled" in text
    assert "policy default: spare is not in the registry" in text
    assert re.search(r"validator guard disabled provider mock fallback spare unknown", text)
    assert "mock provider enabled 90.0 % 90.0 % of 10 calls" in text
    assert "ada@example.com created RoutingPolicy default" in text


async def test_what_needs_attention_is_not_only_what_is_on_this_page(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(*(extension(f"e{number:02}", "provider") for number in range(30)))
    await admin.write(*(policy(f"p{number:02}", "e29" if number != 28 else "none") for number in range(29)))
    await admin.registry.fold_health([HealthDelta(extension_id="e29", failure=1)], epoch=admin.epoch)
    text = Reader(await page(admin)).text
    assert "extension e29: health 0 %" in text
    assert "policy p28: none is not in the registry" in text
    await admin.write(*(policy(f"q{number:02}", f"none-{number}") for number in range(30)))
    text = Reader(await page(admin)).text
    assert "policy q17" in text
    assert "policy q18" not in text
    assert "and more" in text


async def test_an_empty_registry_says_what_to_do(admin: Any) -> None:
    text = Reader(await page(admin)).text
    assert "No policies yet: apply a RoutingPolicy" in text
    assert "No extensions yet: apply an Extension" in text
    assert "Needs attention" not in text


async def test_long_lists_have_pages_and_a_search(admin: Any, extension: Any) -> None:
    await admin.write(*(extension(f"e{number:02}") for number in range(30)))
    first = await page(admin)
    assert "e24" in Reader(first).text
    assert ("pre.e24.v1" in first, "pre.e25.v1" in first) == (True, False)
    assert 'href="/?after=e24#extensions"' in first
    second = await page(admin, after="e24")
    assert ("pre.e25.v1" in second, "pre.e29.v1" in second) == (True, True)
    assert "More extensions" not in second
    found = await page(admin, q="E07")
    assert "e07" in found
    assert "beamline.ext.pre.e08.v1" not in found


@pytest.mark.parametrize("nasty", XSS)
async def test_nothing_that_was_written_somewhere_becomes_markup(
    admin: Any, extension: Any, policy: Any, nasty: str
) -> None:
    harmless = Reader(await page(admin)).tags
    await admin.write(
        extension(nasty, subject=f"{nasty}.subject", config={nasty: nasty}),
        policy(
            nasty, provider=nasty, match={"tenants": [nasty], "models": [nasty], "headers": {nasty: nasty}}
        ),
        by=nasty,
    )
    await admin.write(
        extension(nasty, generation=2, subject=f"{nasty}.subject", config={nasty: nasty * 2}), by=nasty
    )
    html = await page(admin, q=nasty)
    seen = Reader(html)
    assert nasty in seen.text, "it is shown as what it is"
    assert seen.tags <= TAGS | harmless
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "style"]
    assert not [
        value
        for name, value in seen.attributes
        if name in {"href", "src", "action"} and not str(value).startswith(("/", "#"))
    ]


async def test_no_page_loads_anything_from_another_host_or_has_a_script_of_its_own(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(extension("mock", "provider"), policy("default"))
    html = await page(admin)
    assert set(re.findall(r"<script[^>]*>.{9}", html)) == {
        '<script src="/static/theme.js"></script>',
        '<script type="module" src="/static/page.js"></script>',
    }
    assert "http" not in html
    for path in re.findall(r'(?:src|href)="(/static/[^"]+)"', html):
        async with admin.client(token=None) as client:
            answer = await client.get(path)
            assert answer.status_code == 200
            tag = answer.headers["etag"]
            assert (await client.get(path, headers={"if-none-match": tag})).status_code == 304


async def test_the_session_cookie_is_kept_from_scripts_and_other_sites(admin: Any) -> None:
    async with admin.client(token=None) as client:
        answer = await client.post("/login", content=f"token={admin.token}")
        cookie = answer.headers["set-cookie"].lower()
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert admin.token not in cookie


@pytest.mark.parametrize(
    ("how", "body", "status"),
    [
        pytest.param({}, "token=wrong", 401, id="a wrong token"),
        pytest.param({}, "", 401, id="no token"),
        pytest.param({}, "token=" + "x" * 5000, 413, id="a flood"),
        pytest.param({"host": "10.1.2.3"}, "token=the-token-of-these-tests", 401, id="from another machine"),
    ],
)
async def test_a_failed_login_says_so_and_sets_nothing(
    admin: Any, how: dict[str, str], body: str, status: int
) -> None:
    async with admin.client(token=None, **how) as client:
        answer = await client.post("/login", content=body)
    assert answer.status_code == status
    assert 'role="alert"' in answer.text
    assert "set-cookie" not in answer.headers


async def test_logging_out_ends_the_session_also_for_whoever_copied_the_cookie(admin: Any) -> None:
    async with logged_in(admin) as client:
        copied = dict(client.cookies)
        await client.post("/logout")
    async with admin.client(token=None, cookies=copied) as thief:
        assert (await thief.get("/")).status_code == 303


async def test_a_copied_session_is_worth_nothing_on_another_machine(admin: Any) -> None:
    async with logged_in(admin) as client:
        copied = dict(client.cookies)
    async with admin.client(token=None, host="10.1.2.3", cookies=copied) as thief:
        assert (await thief.get("/")).status_code == 303


async def test_a_problem_is_a_page_for_people(admin: Any) -> None:
    async with logged_in(admin) as client:
        answer = await client.get("/nothing")
    assert answer.status_code == 404
    assert "there is nothing at this path" in Reader(answer.text).text
