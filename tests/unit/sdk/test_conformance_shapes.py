"""Which replies keep the contract, as the conformance suite reads them; and its report as JUnit."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from beamline_contract.errors import ErrorCode
from beamline_contract.names import ExtensionType
from beamline_sdk.conformance import CHECKS, CheckResult, Outcome, Report, Target
from beamline_sdk.conformance.shapes import end_faults, reply_faults
from beamline_sdk.conformance.target import TargetError

REQUEST = {"provider_id": "p", "tenant_id": "acme"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
REPLY = {
    "provider_id": "p",
    "output": "hi",
    "usage": USAGE,
    "metadata": {"model": "m", "finish_reason": "stop"},
}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param("provider", REPLY, id="a provider's reply"),
        pytest.param("validator", {"verdict": "pass"}, id="a pass"),
        pytest.param("validator", {"verdict": "reject", "reason": "no", "details": {}}, id="a rejection"),
        pytest.param("pre", {}, id="a pre step that changes nothing"),
        pytest.param("pre", {"prompt": "x", "tenant_id": "acme"}, id="a pre step that repeats the tenant"),
        pytest.param("post", {"output": "x"}, id="a post step"),
        *(
            pytest.param("post", {"error": {"code": code, "message": "m"}}, id=f"the error {code}")
            for code in ErrorCode
        ),
    ],
)
def test_what_keeps_the_contract_has_no_fault(kind: ExtensionType, body: Any) -> None:
    assert reply_faults(kind, body, REQUEST) == ()


@pytest.mark.parametrize(
    ("kind", "body", "told"),
    [
        pytest.param("pre", None, "JSON object", id="no JSON at all"),
        pytest.param("pre", {"prompt": 7}, "prompt is not a string", id="a prompt that is a number"),
        pytest.param("pre", {"tenant_id": "other"}, "tenant_id is changed", id="another tenant"),
        pytest.param("post", {"output": []}, "output is not a string", id="an output that is a list"),
        pytest.param("validator", {"verdict": "maybe"}, "neither", id="a verdict that is none"),
        pytest.param("validator", {"verdict": "reject"}, "no reason", id="a rejection without a reason"),
        pytest.param("validator", {"verdict": "pass", "details": 1}, "details", id="details as a number"),
        pytest.param("provider", {**REPLY, "output": None}, "output", id="no output"),
        pytest.param("provider", {**REPLY, "provider_id": "q"}, "provider_id", id="another provider"),
        pytest.param("provider", {**REPLY, "usage": None}, "usage", id="no usage"),
        pytest.param("provider", {**REPLY, "usage": {**USAGE, "total_tokens": 9}}, "sum", id="a wrong sum"),
        pytest.param("provider", {**REPLY, "usage": {**USAGE, "prompt_tokens": True}}, "whole", id="true"),
        pytest.param("provider", {**REPLY, "metadata": {"model": "m"}}, "finish_reason", id="no reason"),
        pytest.param("provider", {"error": "no"}, "error is not an object", id="an error that is a text"),
        pytest.param(
            "provider", {"error": {"code": "E_FAIL", "message": "m"}}, "is not one of", id="own code"
        ),
        pytest.param("provider", {"error": {"code": "INTERNAL"}}, "message", id="no sentence"),
    ],
)
def test_what_breaks_it_is_told(kind: ExtensionType, body: Any, told: str) -> None:
    assert told in "; ".join(reply_faults(kind, body, REQUEST))


def test_the_end_of_a_stream_is_a_reply_without_output() -> None:
    end = {name: value for name, value in REPLY.items() if name != "output"}
    assert end_faults(end, REQUEST) == ()
    assert end_faults(REPLY, REQUEST) == ("the end of the stream repeats output",)


def test_a_subject_tells_kind_and_id() -> None:
    target = Target.of("beamline.ext.validate.tone_guard.v2")
    assert (target.kind, target.extension_id) == ("validator", "tone_guard")
    assert Target.of("acme.own", kind="pre").extension_id == "own"


@pytest.mark.parametrize("subject", ["beamline.ext.pre.*.v1", "acme.own", "$SRV.PING", ""])
def test_a_subject_that_tells_nothing_is_refused(subject: str) -> None:
    with pytest.raises(TargetError):
        Target.of(subject)


def test_every_request_holds_the_canary_and_ids_of_its_own() -> None:
    target = Target.of("beamline.provider.x.v1")
    one, two = target.request(), target.request()
    assert target.canary in one["prompt"]
    assert one["trace_id"] != two["trace_id"]


def test_a_report_is_junit_whatever_the_extension_said() -> None:
    results = (
        CheckResult(CHECKS[0], Outcome.PASSED, "fine", 0.1),
        CheckResult(CHECKS[1], Outcome.FAILED, "said \x1b[2J <&>", 0.2),
        CheckResult(CHECKS[2], Outcome.NOT_CHECKED, "no process", 0.0),
    )
    report = Report("s", "x", "pre", results)
    (suite,) = Xml.fromstring(report.to_junit())
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [case.get("name") for case in suite] == [check.id for check in CHECKS[:3]]
    assert not report.passed
    assert report.to_json()["checks"][1]["advice"] == CHECKS[1].advice
