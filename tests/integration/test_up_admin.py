"""The admin API of ``beamline up``: a change through it lands in the file and in every router, with who made
it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from harness.laptop import Up


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    made = Up(tmp_path_factory.mktemp("up-admin"))
    try:
        yield made.ready()
    finally:
        made.stop()


@pytest.fixture
def api(up: Up) -> Iterator[httpx2.Client]:
    found = re.search(r"Admin API: (\S+) with 'Authorization: Bearer (\S+)'", up.said)
    assert found is not None, up.said
    with httpx2.Client(
        base_url=found.group(1), headers={"authorization": f"Bearer {found.group(2)}"}, timeout=40.0
    ) as client:
        yield client


def good(answer: httpx2.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_change_reaches_the_file_every_router_and_the_audit_log(up: Up, api: httpx2.Client) -> None:
    file = up.folder / "extensions.yaml"
    before = file.read_text()
    held = good(api.get("/extensions/pii_guard/conditions"))
    spec = {**_spec(up, "pii-guard"), "timeoutMs": 321}
    wait = {"wait": "programmed", "timeout_s": 30}
    stale = api.put("/extensions/pii_guard", json={"spec": spec, "generation": 99})
    assert (stale.status_code, stale.json()["code"], stale.json()["field"]) == (409, "conflict", "generation")
    answer = api.put(
        "/extensions/pii_guard", json={"spec": spec, "generation": held["generation"]}, params=wait
    )
    done = good(answer)
    assert done["changes"] == {"spec.timeoutMs": {"from": 200, "to": 321}}
    assert (done["progress"]["state"], done["progress"]["routers"]) == ("programmed", "1/1")
    after = file.read_text()
    assert "timeoutMs: 321" in after
    assert "# Looks for cards and social security numbers only" in after
    assert len(before.splitlines()) <= len(after.splitlines()) <= len(before.splitlines()) + 2
    assert good(api.get("/extensions/pii_guard"))["timeout_ms"] == 321
    newest = good(api.get("/audit", params={"object_id": "pii_guard"}))["items"][0]
    assert (newest["changed_by"], newest["request_id"]) == (
        "local (beamline-admin)",
        answer.headers["x-request-id"],
    )
    assert newest["changes"]["timeout_ms"] == {"from": 200, "to": 321}


def test_disabled_extensions_leave_the_routers_and_come_back(up: Up, api: httpx2.Client) -> None:
    wait = {"wait": "programmed", "timeout_s": 30}
    off = good(api.post("/extensions/mask_sensitive_data/disable", params=wait))
    assert off["progress"]["state"] == "programmed"
    status, reply = up.route("mail jane.doe@example.com")
    assert status == 200
    assert "jane.doe@example.com" in str(reply)
    on = good(api.post("/extensions/mask_sensitive_data/enable", params=wait))
    assert (on["generation"], on["progress"]["state"]) == (off["generation"] + 1, "programmed")
    actions = [row["action"] for row in good(api.get("/audit", params={"limit": 2}))["items"]]
    assert actions == ["enabled", "disabled"]


def test_an_object_is_checked_made_and_deleted(up: Up, api: httpx2.Client) -> None:
    wait = {"wait": "programmed", "timeout_s": 30}
    taken = {"name": "other", "spec": {"type": "post", "subject": "beamline.ext.post.mask_pii.v1"}}
    checked = good(api.post("/extensions/validate", json=taken))
    assert not checked["valid"]
    assert "belongs to Extension default/mask-sensitive-data" in checked["faults"][0]["message"]
    new = {"name": "new-one", "spec": {"type": "pre", "config": {"text": "yes"}}}
    made = good(api.post("/extensions", json=new, params=wait), 201)
    assert made["progress"]["state"] == "programmed"
    assert api.post("/extensions", json=new).json()["code"] == "already_exists"
    assert good(api.get("/extensions/new_one"))["config"] == {"text": "yes"}
    assert (up.folder / "new-one.yaml").exists()
    gone = good(api.delete("/extensions/new_one", params={**wait, "generation": 1}))
    assert gone["progress"]["state"] == "gone"
    assert not (up.folder / "new-one.yaml").exists()
    deleted = good(api.get("/audit", params={"object_id": "new_one"}))["items"][0]
    assert (deleted["action"], deleted["changed_by"]) == ("deleted", "local (beamline-admin)")


def test_routers_breakers_and_ways_are_asked_live(up: Up, api: httpx2.Client) -> None:
    (router,) = good(api.get("/routers"))["routers"]
    assert router["result"]["revision"] >= 1
    explained = good(api.post("/explain", json={"request": {"prompt": "hello"}}))
    assert explained["routers"][0]["result"]["policy"]["id"] == "default"
    assert api.post("/extensions/nobody/isolate").status_code == 404
    isolated = good(api.post("/extensions/mock_provider/isolate"))
    assert isolated["routers"][0]["result"]["breakers"]["mock_provider"] == "isolated"
    assert up.route("x")[0] == 503
    reset = api.post("/extensions/mock_provider/reset")
    assert up.route("x")[0] == 200
    newest, before, *_ = good(api.get("/audit", params={"object_id": "mock_provider"}))["items"]
    assert newest["request_id"] == reset.headers["x-request-id"]
    assert newest["changes"] == {"breaker": {"from": "isolated", "to": "closed"}}
    assert before["changes"] == {"breaker": {"from": "closed", "to": "isolated"}}
    assert newest["changed_by"] == before["changed_by"] == "local (beamline-admin)"


def _spec(up: Up, name: str) -> dict[str, Any]:
    import yaml

    for path in Path(up.folder).glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document["metadata"]["name"] == name:
                return dict(document["spec"])
    raise AssertionError(name)


def test_a_watched_request_is_told_as_it_happens_and_remembered_afterwards(
    up: Up, api: httpx2.Client
) -> None:
    secret = "a-word-that-nobody-else-says"
    good(api.post("/trail/watch", json={"seconds": 60}))
    heard = []
    with api.stream("GET", "/events", params={"topics": "trail", "seconds": 30}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "retry: 2000"
        _, reply = up.route(f"hello {secret}")
        for line in lines:
            heard.append(line)
            if line.startswith("data: ") and reply["request_id"] in line:
                break
    told = json.loads(heard[-1].removeprefix("data: "))
    assert (told["policy"], told["provider"], told["reason"]) == ("default", "mock_provider", "ordered")
    kept = good(api.get(f"/requests/{reply['request_id']}"))
    assert [step["name"] for step in kept["steps"]] == [step["step"] for step in reply["steps"]]
    listed = good(api.get("/requests", params={"extension": "mock_provider", "limit": 5}))
    assert reply["request_id"] in {one["request_id"] for one in listed["items"]}
    assert secret not in json.dumps([told, kept, listed])
    assert api.get("/requests/unknown").status_code == 404
    denied = api.post("/trail/watch", json={"content": True})
    assert (denied.status_code, denied.json()["field"]) == (403, "content")


def test_the_playground_compares_two_ways_through_a_real_router(api: httpx2.Client) -> None:
    body = {"request": {"prompt": "hello"}, "policy": "default", "compare": "nobody"}
    one, other = good(api.post("/playground", json=body))["answers"]
    assert (one["policy"], one["status"]) == ("default", "ok")
    assert one["answer"]["output"].startswith("Mock response to: hello")
    assert one["trail"]["request_id"] == one["request_id"]
    assert (other["status"], other["error"]["code"]) == ("error", "NOT_FOUND")
