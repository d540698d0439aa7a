"""The messages that docs/extensions shows are the ones that a router sends and takes.

Each pair of the pages becomes a policy with the step that the page is about; the extension is the real one.
What the page shows as the request must be in what arrives on its subject, and what it shows as the
reply must be what becomes of the request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from beamline_extensions.catalogue import create, names
from beamline_sdk import Extension

from .conftest import Site, eventually, extension, policy, provider_reply, running
from .openai_world import serving_extension

DOCS = Path(__file__).resolve().parents[3] / "docs" / "extensions"
_PAIR = re.compile(r"^```json request (\S+)\n(.*?)^```.*?^```json reply\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_KINDS = {"pre": "pre", "validate": "validator", "post": "post", "provider": "provider"}
PAGES = sorted(page.name for page in DOCS.glob("*.md") if _PAIR.search(page.read_text()))


@dataclass(frozen=True)
class Talk:
    """One request and its reply, as a page shows them."""

    subject: str
    request: dict[str, Any]
    reply: dict[str, Any]

    @property
    def name(self) -> str:
        return self.subject.split(".")[-2]

    @property
    def kind(self) -> str:
        return _KINDS[self.subject.split(".")[-3]]

    def steps(self) -> list[dict[str, Any]]:
        """The step of the page, and a provider where it is about another."""
        own = {"config": self.request.get("config", {})}
        if self.kind == "provider":
            return [{"action": "select_provider", "provider_id": self.name, "fallback": [], **own}]
        step = {"action": f"extension_{self.kind}", "extension_id": self.name, **own}
        says = {"says": self.request.get("output", "fine")}
        answers = {"action": "select_provider", "provider_id": "stand_in", "config": says, "fallback": []}
        return [answers, step] if self.kind == "post" else [step, answers]

    def body(self, model: str) -> dict[str, Any]:
        given = {key: self.request[key] for key in ("prompt", "parameters", "context") if key in self.request}
        return {**given, "model": model}


def talks(page: str) -> list[Talk]:
    found = _PAIR.findall((DOCS / page).read_text())
    return [Talk(subject, json.loads(request), json.loads(reply)) for subject, request, reply in found]


def own_extensions(page: str) -> dict[str, Extension]:
    made: dict[str, Extension] = {}
    for code in _PYTHON.findall((DOCS / page).read_text()):
        namespace: dict[str, Any] = {"__name__": "page"}
        exec(compile(code, page, "exec"), namespace)
        made.update({one.name: one for one in namespace.values() if isinstance(one, Extension)})
    return made


def holds(found: Any, shown: Any) -> bool:
    if isinstance(shown, Mapping) and isinstance(found, Mapping):
        return all(key in found and holds(found[key], value) for key, value in shown.items())
    return bool(found == shown)


@pytest.mark.parametrize("page", PAGES)
async def test_a_router_sends_what_the_page_shows_and_takes_what_it_answers(page: str, site: Site) -> None:
    own, found = own_extensions(page), talks(page)
    asked: list[dict[str, Any]] = []

    def stand_in(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return provider_reply(request, request["config"]["says"])

    await site.respond(site.nc, "stand_in", "beamline.provider.stand_in.v1", stand_in)
    subjects = {talk.subject: talk for talk in found}
    await site.put(
        extension("stand_in", "provider"),
        *(extension(talk.name, talk.kind, subject=subject) for subject, talk in subjects.items()),
        *(
            policy(f"talk_{number}", talk.steps(), match={"models": [f"talk-{number}"]})
            for number, talk in enumerate(found)
        ),
    )
    async with AsyncExitStack() as stack:
        for subject, talk in subjects.items():
            assert talk.name in own or talk.name in names()
            served = own.get(talk.name) or create(talk.name)
            await stack.enter_async_context(serving_extension(served, site, subject))
            await site.listen(subject)
        router = await stack.enter_async_context(running(site.settings()))
        for number, talk in enumerate(found):
            sent = site.heard.get(talk.subject, [])
            before = len(sent)
            reply = await router.route(talk.body(f"talk-{number}"))
            answer = reply.json()
            if "error" in talk.reply:
                code = talk.reply["error"]["code"]
                assert (reply.status_code, answer["error"]["code"]) == (400, code), "refused at the door"
                continue
            await eventually(
                lambda talk=talk, before=before: len(site.heard.get(talk.subject, [])) > before, "it was sent"
            )
            request = site.heard[talk.subject][-1]
            assert holds(request, talk.request), request
            match talk.kind:
                case "validator":
                    assert reply.status_code == 422
                    assert talk.reply["reason"] in answer["error"]["message"]
                case "pre":
                    assert reply.status_code == 200, answer
                    assert holds(asked[-1], talk.reply)
                case _:
                    assert reply.status_code == 200, answer
                    assert holds(answer, talk.reply), answer
