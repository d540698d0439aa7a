"""The operator dies in the middle of its work: what was begun is finished by whoever leads next."""

from __future__ import annotations

import base64
import json

from e2e.rig.case import Case
from e2e.rig.kube import until

MANY = 25


def _rows(case: Case) -> dict[str, int]:
    """id -> generation of this case's rows in the registry, asked of PostgreSQL itself."""
    query = (
        "select json_object_agg(id, generation) from (select id, generation, namespace from extensions "
        "union all select id, generation, namespace from routing_policies) rows "
        f"where namespace = '{case.namespace}'"
    )
    words = ["exec", f"{case.install.name}-postgres-0", "-n", case.install.namespace, "--", "psql"]
    words += ["-h", "127.0.0.1", "-U", "beamline", "-d", "beamline", "-At", "-c", query]
    secret = case.kube.get("secret", f"{case.install.name}-bundled", case.install.namespace)
    assert secret is not None
    password = base64.b64decode(secret["data"]["password"]).decode()
    words[words.index("psql") : words.index("psql")] = ["env", f"PGPASSWORD={password}"]
    said = case.kube.kubectl(*words).strip()
    found: dict[str, int] = json.loads(said) if said else {}
    return found


def test_an_operator_killed_in_the_middle_leaves_nothing_half_done(case: Case) -> None:
    case.apply(case.extension("echo"), case.policy(case.provider("echo")))
    case.ready()
    install = case.install
    many = []
    for index in range(MANY):
        made = case.extension(f"many{index}", config={"mode": "fixed", "answer": "1"})
        del made["spec"]["workload"]
        many.append(made)
    with install.load(case.request()) as load:
        load.goes_on()
        leader = install.leader()
        case.apply(*many)
        kill = [
            "delete",
            "pod",
            leader,
            "-n",
            install.namespace,
            "--grace-period=0",
            "--force",
            "--wait=false",
        ]
        case.kube.kubectl(*kill)
        for made in many:
            made["spec"]["config"]["answer"] = "2"
        case.apply(*many)
        until("another operator leads", lambda: install.leader() not in {"", leader}, timeout_s=90)
        case.ready(timeout_s=120)
        load.goes_on()
        load.ends_without_loss()
    generations = {
        made["metadata"]["name"].replace("-", "_"): made["metadata"]["generation"]
        for kind in ("ext", "rp")
        for made in case.kube.items(kind, case.namespace)
    }
    assert _rows(case) == generations
    case.kube.rolled_out(f"deployment/{install.name}-operator", install.namespace)
    case.kube.kubectl("delete", "ext", "--all", "-n", case.namespace, "--timeout=60s")
    assert set(_rows(case)) == {case.named("model").replace("-", "_")}
