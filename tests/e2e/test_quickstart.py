"""From nothing to an answered prompt, as docs/install/quickstart.md tells it."""

from __future__ import annotations

import pytest

from e2e.rig.case import Case
from e2e.rig.kube import Kube
from e2e.rig.settings import ROOT, SHIPPED_IMAGE
from e2e.rig.world import World

MAIL = "  Mail   ME at jane.doe@example.com "
MASKED = "Mock response to: mail me at [EMAIL] [provider=mock_provider]"
CARD = "my card is 4111 1111 1111 1111"


@pytest.fixture
def quickstart(case: Case, world: World) -> Case:
    """examples/quickstart, applied as it is but for the image's name."""
    text = "\n---\n".join(
        path.read_text() for path in sorted((ROOT / "examples" / "quickstart").glob("*.yaml"))
    )
    text = text.replace(SHIPPED_IMAGE, world.settings.image)
    case.kube.kubectl("apply", "-n", case.namespace, "-f", "-", stdin=text)
    case.ready()
    return case


def test_a_prompt_is_answered_through_the_service_by_http_and_by_nats(quickstart: Case) -> None:
    for door in ("http", "nats"):
        answer = quickstart.install.answer({"prompt": MAIL}, door=door)
        assert answer["output"] == MASKED, door
        assert [step["outcome"] for step in answer["steps"]] == ["ok"] * 4, door


def test_the_guard_refuses_a_card_before_the_provider_is_asked(quickstart: Case) -> None:
    status, body = quickstart.install.ask({"prompt": CARD})
    assert (status, body["error"]["code"]) == (422, "VALIDATION_REJECTED")
    status, body = quickstart.install.ask({"prompt": CARD}, door="nats")
    assert body["error"]["code"] == "VALIDATION_REJECTED"


def test_who_has_no_key_is_refused_over_http_and_helm_test_knows(quickstart: Case, kube: Kube) -> None:
    install = quickstart.install
    status, body = install.clients.ask(f"{install.url}/v1/route", {"prompt": "hello"})
    assert (status, body["error"]["code"]) == (401, "UNAUTHENTICATED")
    said = kube.must("helm", "test", install.release, "-n", install.namespace, "--timeout", "120s")
    assert "Phase:          Succeeded" in said
