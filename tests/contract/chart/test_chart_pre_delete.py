"""The hook before an uninstallation: least rights, and a command that this program has."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from beamline_cli.main import app

from .rendering import BUNDLED, Chart, merged


def hooks(chart: Chart, values: dict[str, Any]) -> list[dict[str, Any]]:
    rendered = chart.render(merged(BUNDLED, values))
    return [
        found
        for found in rendered.objects
        if (found["metadata"].get("annotations") or {}).get("helm.sh/hook") == "pre-delete"
    ]


def test_it_may_list_and_patch_our_objects_and_stop_this_operator_and_nothing_else(chart: Chart) -> None:
    found = hooks(chart, {})
    rules = [rule for one in found if one["kind"] in {"Role", "ClusterRole"} for rule in one["rules"]]
    assert {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in rules} == {
        (("extensions", "routingpolicies"), ("list", "patch")),
        (("deployments/scale",), ("patch",)),
        (("leases",), ("delete",)),
    }
    names = [
        rule["resourceNames"] for rule in rules if rule["resources"] != ["extensions", "routingpolicies"]
    ]
    assert len(names) == 2
    assert names[0] == names[1]
    assert len(names[0]) == 1


def test_with_named_namespaces_it_needs_roles_only(chart: Chart) -> None:
    found = hooks(chart, {"operator": {"namespaces": ["red", "blue"]}})
    assert not [one for one in found if one["kind"].startswith("Cluster")]
    (job,) = (one for one in found if one["kind"] == "Job")
    arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert {"--namespace=red", "--namespace=blue"} <= set(arguments)


def test_its_command_and_every_option_exist(chart: Chart) -> None:
    (job,) = (one for one in hooks(chart, {}) if one["kind"] == "Job")
    command, *options = job["spec"]["template"]["spec"]["containers"][0]["args"]
    known = {name for one in get_command(app).commands[command].params for name in one.opts}  # type: ignore[attr-defined]  # a group
    assert {option.partition("=")[0] for option in options} <= known
