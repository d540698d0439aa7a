"""What an operator refuses to start without, or to go on with: the real process, as the image starts it, says
one sentence with the command that helps, and exits with 78.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import asyncpg
import pytest
import yaml
from operatorbench import Bench
from test_operator_rights import account
from test_operator_robust import ELSEWHERE, may_lead

from beamline_operator import app
from beamline_operator.app import EXIT_CONFIG, EXIT_UNAVAILABLE, OperatorSettings, Refusal, run
from beamline_operator.rbac import lease_rules, rules
from beamline_registry.migrate import migrate
from beamline_sdk.waiting import ended
from harness.processes import free_port

STARTS_WITHIN_S = 60.0


async def start(bench: Bench, **changed: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "beamline_cli",
        "operator",
        env=bench.environment(**changed),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def at_work(bench: Bench, **changed: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An operator that leads, in a process of its own, and has served an Extension."""
    process = await start(bench, **changed)
    try:
        await served(bench, "a")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def served(bench: Bench, name: str) -> None:
    """Somebody leads: another Extension is served."""
    await bench.extension(name, workload=None)
    await bench.wait("Extension", name, "Synced", "True")


async def last_words(process: asyncio.subprocess.Process) -> tuple[int | None, list[str]]:
    """The exit code, and the lines that are no log."""
    try:
        _, said = await asyncio.wait_for(process.communicate(), STARTS_WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = said.decode().splitlines()
    return process.returncode, [line for line in lines if line.strip() and not line.startswith("{")]


async def refused(process: asyncio.subprocess.Process, *parts: str) -> None:
    code, said = await last_words(process)
    assert (code, len(said)) == (EXIT_CONFIG, 1), said
    assert said[0].startswith("beamline operator: ")
    for part in parts:
        assert part in said[0]


async def older_database(url: str) -> None:
    """As a release before the last migration left it."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "DELETE FROM schema_migrations WHERE name = (SELECT max(name) FROM schema_migrations)"
    )
    await connection.close()


async def newer_database(url: str) -> None:
    """As a release after this one leaves it."""
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO schema_migrations (name, checksum) VALUES ('9999_later', 'x')")
    await connection.close()


async def empty_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DROP TABLE schema_migrations")
    await connection.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(empty_database, ("holds no registry yet", "`beamline migrate`"), id="without a schema"),
        pytest.param(older_database, ("the database lacks", "`beamline migrate`"), id="older"),
        pytest.param(
            newer_database, ("9999_later", "`pip install --upgrade beamline`"), id="newer"
        ),
    ],
)  # fmt: skip
async def test_a_database_of_another_release(
    bench: Bench, change: Callable[[str], Awaitable[None]], says: tuple[str, ...]
) -> None:
    await change(bench.settings["database_url"])
    await refused(await start(bench), *says)


async def test_crds_that_are_missing_or_older(bench: Bench, own_cluster: Any, tmp_path: Path) -> None:
    """All cases on one API server of this test's own."""
    mine = {"KUBECONFIG": str(own_cluster.kubeconfig), "BEAMLINE_NAMESPACES": "default"}
    path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/retry"
    patch = json.dumps([{"op": "remove", "path": path}])
    own_cluster.kubectl("patch", "crd", "extensions.beamline.io", "--type=json", "-p", patch)
    apply = "run `kubectl apply -f crds/`"

    async def published() -> bool:
        page = "/openapi/v3/apis/beamline.io/v1alpha1"
        found = own_cluster.kubectl("get", "--raw", page, check=False)
        if found.returncode != 0:  # a new API server publishes it some seconds after the definitions
            return False
        schemas = json.loads(found.stdout)["components"]["schemas"]
        return "retry" not in schemas["io.beamline.v1alpha1.Extension"]["properties"]["spec"]["properties"]

    await bench.until(published, "the older schema is published")
    older = "the CRDs are older than this operator, Extension lacks spec.retry"
    await refused(await start(bench, **mine), older, apply)
    own_cluster.kubectl("delete", "crd", "routingpolicies.beamline.io")
    own_cluster.kubectl("wait", "--for=delete", "crd/routingpolicies.beamline.io")
    await refused(await start(bench, **mine), "does not serve routingpolicies", apply)
    own_cluster.kubectl("delete", "crd", "extensions.beamline.io")
    own_cluster.kubectl("wait", "--for=delete", "crd/extensions.beamline.io")
    await refused(await start(bench, **mine), "does not know beamline.io/v1alpha1", apply)


@pytest.mark.parametrize(
    ("granted", "says"),
    [
        pytest.param([], "may not get extensions.beamline.io, list", id="no right at all"),
        pytest.param(
            [rule for rule in rules() if "services" not in rule["resources"]]
            + lease_rules("beamline-operator"),
            "may not get serviceaccounts",
            id="some missing",
        ),
        pytest.param(
            rules(), "may not get, update, create the Lease beamline-operator", id="none to the Lease"
        ),
    ],
)
async def test_an_account_without_the_rights(
    bench: Bench, cluster: Any, tmp_path: Path, granted: list[dict[str, Any]], says: str
) -> None:
    kubeconfig = await account(bench, cluster, tmp_path, granted)
    command = ("`helm upgrade` with the chart of this version", "`python -m beamline_operator.rbac`")
    await refused(await start(bench, KUBECONFIG=kubeconfig), says, *command)


def elsewhere(kubeconfig: Path, path: Path) -> str:
    """The same login, at an address where nobody listens."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{free_port()}"
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_an_api_server_that_is_not_there_is_no_refusal_but_another_exit_code(
    bench: Bench, tmp_path: Path
) -> None:
    kubeconfig = elsewhere(Path(bench.settings["kubeconfig"]), tmp_path / "kubeconfig")
    code, said = await last_words(await start(bench, KUBECONFIG=kubeconfig))
    assert (code, len(said)) == (EXIT_UNAVAILABLE, 1), said
    assert "the API server does not answer" in said[0]


async def test_an_operator_that_finds_another_at_its_work_refuses_and_leaves_it_alone(bench: Bench) -> None:
    bench.patience_s = 60
    two = await may_lead(bench, "two", bench.namespace)
    async with at_work(bench, BEAMLINE_IDENTITY="first") as first:
        lease = f"first (Lease {bench.namespace}/beamline-operator)"
        second = await start(bench, BEAMLINE_LEASE_NAME=two)
        await refused(second, lease, "BEAMLINE_NAMESPACES", "`kubectl get lease -A`")
        await served(bench, "b")
        first.kill()
        await first.wait()
        await bench.start(identity="third", lease_name=two)  # the Lease of who was killed holds nobody up
        await served(bench, "c")


async def test_of_two_that_started_in_the_same_moment_the_younger_gives_way(
    bench: Bench, other_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with a registry of its own. The younger looked for others when the older had no Lease yet: here it
    does not look at all.
    """
    await migrate(other_database_url)
    bench.patience_s = 60
    two = await may_lead(bench, "two", bench.namespace)
    async with at_work(bench, BEAMLINE_IDENTITY="first") as first:
        looked = AsyncMock()
        monkeypatch.setattr(app, "check_alone", looked)
        changed = {"identity": "second", "lease_name": two, "database_url": other_database_url}
        settings = OperatorSettings(**{**bench.settings, **changed})
        with pytest.raises(Refusal, match=rf"first \(Lease {bench.namespace}/beamline-operator\), serves"):
            await asyncio.wait_for(run(settings), STARTS_WITHIN_S)
        looked.assert_awaited_once()
        await served(bench, "b")
        assert first.returncode is None


async def test_two_operators_of_one_registry_that_cannot_see_each_other(bench: Bench) -> None:
    one, two = await may_lead(bench, "one"), await may_lead(bench, "two")
    mine = {"BEAMLINE_LEASE_NAME": one, "BEAMLINE_LEASE_NAMESPACE": ELSEWHERE}
    async with at_work(bench, BEAMLINE_IDENTITY="first", **mine) as first:
        await bench.start(identity="second", lease_name=two, lease_namespace=ELSEWHERE)
        goes_on = asyncio.create_task(write_on(bench))
        await refused(first, "another operator writes this registry", "second", "`kubectl get lease -A`")
        await ended(goes_on)
        await served(bench, "b")


async def write_on(bench: Bench) -> None:
    """Something to write for whoever is fenced."""
    for timeout in range(1, 1000):
        await bench.extension("a", workload=None, timeoutMs=timeout)
        await asyncio.sleep(0.2)
