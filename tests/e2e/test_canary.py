"""A version takes over its base's requests step by step, as real traffic shows it; a bad one goes back."""

from __future__ import annotations

from e2e.rig.case import Case
from e2e.rig.kube import until

STEPS = [{"weight": 20, "pauseSeconds": 4}, {"weight": 60, "pauseSeconds": 4}]


def _version(case: Case, config: dict[str, object]) -> dict[str, object]:
    return case.extension(
        "echo-v2",
        config=config,
        version="2.0",
        versionOf=case.named("echo"),
        canary={"steps": STEPS, "gates": {"maxErrorRate": 0.2, "minSamples": 10}},
        retry=0,
    )


def _state(case: Case) -> str:
    return str((case.get("echo-v2")["status"].get("canary") or {}).get("state"))


def _prepared(case: Case) -> None:
    base = case.extension("echo", config={"mode": "fixed", "answer": "old"})
    case.apply(base, case.policy(case.provider("echo")))
    case.ready()


def test_a_good_version_is_promoted_and_gets_every_request(case: Case) -> None:
    _prepared(case)
    with case.install.load(case.request()) as load:
        load.goes_on()
        case.apply(_version(case, {"mode": "fixed", "answer": "new"}))
        until("some requests get the new version", lambda: _answers(case) == {"old", "new"}, timeout_s=60)
        assert _state(case) in {"Progressing", "Promoted"}
        until("it is promoted", lambda: _state(case) == "Promoted", timeout_s=120)
        until("every request gets it", lambda: _answers(case) == {"new"}, timeout_s=30)
        load.ends_without_loss()
    assert case.condition("echo-v2", "Canary")["reason"] == "CanaryPromoted"


def test_a_failing_version_is_taken_back_and_the_base_serves_on(case: Case) -> None:
    _prepared(case)
    with case.install.load(case.request()) as load:
        load.goes_on()
        case.apply(_version(case, {"mode": "fixed", "answer": "new", "error_rate": 1}))
        until("it is rolled back", lambda: _state(case) == "RolledBack", timeout_s=120)
        until("every request gets the base", lambda: _answers(case) == {"old"}, timeout_s=30)
        load.goes_on()
    found = case.condition("echo-v2", "Canary")
    assert found["reason"] == "CanaryRolledBack"
    assert "step 1 of 2" in found["message"]  # by the gate or by its open breaker, whichever was first


def _answers(case: Case) -> set[str]:
    """What ten requests answer; a failure of the bad version is no answer."""
    asked = [case.install.ask(case.request()) for _ in range(10)]
    return {body["output"] for status, body in asked if status == 200}
