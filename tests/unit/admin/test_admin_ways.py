"""What a router explains, for who is bound to tenants."""

from __future__ import annotations

from typing import Any

from beamline_admin.catalogue import View
from beamline_admin.identity import Identity, Role
from beamline_admin.ways import as_seen
from beamline_contract.projection import PolicyRecord


def policy(name: str, *tenants: str) -> PolicyRecord:
    return PolicyRecord(name, "default", name, f"uid-{name}", 1, {"match": {"tenants": list(tenants)}})


VIEW = View(1, {}, {"all": policy("all"), "ours": policy("ours", "acme"), "theirs": policy("theirs", "shop")})
EXPLAINED: dict[str, Any] = {
    "policy": {"id": "ours", "remarks": [{"other": "theirs"}, {"other": "all"}, {"other": None}]},
    "others": [
        {"policy": "theirs", "because": "match.tenants does not hold", "remarks": []},
        {"policy": "all", "because": "it matches, but ranks lower", "remarks": [{"other": "theirs"}]},
        {"policy": "just_deleted", "because": "x", "remarks": []},
    ],
    "others_total": 3,
}


def test_policies_of_other_tenants_are_not_told_of() -> None:
    seen = as_seen(EXPLAINED, VIEW, Identity("ada", Role.VIEWER, tenants=frozenset({"acme"})))
    assert "theirs" not in str(seen)
    assert [one["policy"] for one in seen["others"]] == ["all"]
    assert seen["others_total"] == 1
    assert seen["policy"]["remarks"] == [{"other": "all"}, {"other": None}]


def test_who_is_bound_to_no_tenants_is_told_everything() -> None:
    assert as_seen(EXPLAINED, VIEW, Identity("ada", Role.VIEWER)) == EXPLAINED
