"""The inspector's pages: login, what they show, and that nothing in them is ever markup of somebody else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

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
        *(
            "script",
            "nav",
            "b",
            "svg",
            "path",
            "caption",
            "select",
            "option",
            "details",
            "summary",
            "pre",
            "footer",
        ),
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
        bare = tag in {"script", "svg"} and not {"src", "viewbox"} & {name for name, _ in attrs}
        self.tags.add(f"bare {tag}" if bare else tag)
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


async def page(admin: Any, path: str = "/", **query: str) -> str:
    async with logged_in(admin) as client:
        answer = await client.get(path, params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return str(answer.text)


async def text_of(admin: Any, path: str = "/", **query: str) -> str:
    return re.sub(r"\s+", " ", Reader(await page(admin, path, **query)).text)


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
    text = await text_of(admin)
    assert "extension mock : health 90 % over the last five minutes" in text
    assert "policy default : guard is disabled" in text
    assert "policy default : spare is not in the registry" in text
    assert "Extensions 2 1 degraded 1 disabled" in text
    assert "created default policy by ada@example.com" in text


async def test_the_lists_show_health_users_and_the_pipeline_in_one_line_each(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(
        extension("mock", "provider", version="v2"),
        extension("guard", "validator", enabled=False),
        policy("default", "mock", ("guard",), fallback=["spare"]),
    )
    await admin.registry.fold_health(
        [HealthDelta(extension_id="mock", success=9, failure=1)], epoch=admin.epoch
    )
    text = await text_of(admin, "/extensions")
    assert re.search(r"mock provider degraded 90 % . . v2 . . . 1 1", text), text
    assert re.search(r"guard validator disabled", text)
    text = await text_of(admin, "/policies")
    assert re.search(r"default every request 0 1 validator 1 provider \+1 2 hints", text), text


async def test_what_needs_attention_is_not_only_what_is_on_one_page(
    admin: Any, extension: Any, policy: Any
) -> None:
    await admin.write(*(extension(f"e{number:02}", "provider") for number in range(30)))
    await admin.write(*(policy(f"p{number:02}", "e29" if number != 28 else "none") for number in range(29)))
    await admin.registry.fold_health([HealthDelta(extension_id="e29", failure=1)], epoch=admin.epoch)
    text = await text_of(admin)
    assert "extension e29 : health 0 %" in text
    assert "policy p28 : none is not in the registry" in text
    await admin.write(*(policy(f"q{number:02}", f"none-{number}") for number in range(30)))
    text = Reader((await page(admin)).partition("Last changes")[0]).text
    assert "q17" in text
    assert "q18" not in text
    assert "and 12 more" in text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        pytest.param("/", "Nothing is here yet", id="the overview"),
        pytest.param("/extensions", "No extensions yet: apply an Extension", id="extensions"),
        pytest.param("/policies", "No policies yet: apply a RoutingPolicy", id="policies"),
        pytest.param("/routers", "this process was not told where NATS is", id="routers"),
        pytest.param("/audit", "Nothing has changed yet", id="audit"),
    ],
)
async def test_an_empty_registry_says_what_to_do_on(admin: Any, path: str, said: str) -> None:
    assert said in await text_of(admin, path)


async def test_long_lists_have_parts_and_a_search_that_stay_in_the_address(
    admin: Any, extension: Any
) -> None:
    await admin.write(*(extension(f"e{number:03}") for number in range(120)))
    first = await page(admin, "/extensions")
    assert ("/extensions/e049" in first, "/extensions/e050" in first) == (True, False)
    assert 'href="/extensions?offset=50"' in first
    last = await page(admin, "/extensions", offset="100", type="pre")
    assert ("/extensions/e100" in last, "/extensions/e119" in last, "/extensions/e099" in last) == (
        True,
        True,
        False,
    )
    assert 'href="/extensions?offset=50&amp;type=pre"' in last
    assert 'rel="next"' not in last
    found = await page(admin, "/extensions", q="E07")
    assert len(re.findall(r'<tr aria-rowindex="\d+">', found)) == 10
    part = await page(admin, "/extensions", part="rows", offset="100")
    assert part.startswith("<!doctype html><title>rows</title>")
    assert 'data-total="120"' in part
    assert len(part) < 40_000


@pytest.mark.parametrize("nasty", XSS)
async def test_nothing_that_was_written_somewhere_becomes_markup(
    admin: Any, extension: Any, policy: Any, nasty: str
) -> None:
    schema = {"properties": {nasty: {"type": "number", "description": nasty, "default": nasty}}}
    await admin.write(
        extension(
            nasty,
            subject=f"{nasty}.subject",
            config={nasty: nasty},
            metadata={nasty: nasty},
            version=nasty,
            spec={"configSchema": schema},
        ),
        policy(
            nasty, provider=nasty, match={"tenants": [nasty], "models": [nasty], "headers": {nasty: nasty}}
        ),
        by=nasty,
    )
    await admin.write(
        extension(nasty, generation=2, subject=f"{nasty}.subject", config={nasty: nasty * 2}), by=nasty
    )
    name = quote(nasty, safe="")
    for path in ("/", "/extensions", f"/extensions/{name}", "/policies", f"/policies/{name}", "/audit"):
        if path.endswith(name) and "/" in nasty:
            continue  # no path of one segment leads there
        seen = Reader(await page(admin, path, q=nasty))
        assert nasty in seen.text, f"{path}: it is shown as what it is"
        assert seen.tags <= TAGS
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
    scripts = re.findall(r"<script.*?</script>|<script.*", html)
    assert '<script type="module" src="/static/page.js"></script>' in scripts
    for script in scripts:
        assert re.fullmatch(r'<script (type="module" )?src="/static/[a-z-]+\.js"></script>', script), script
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
