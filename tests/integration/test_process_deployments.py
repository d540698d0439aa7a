"""Workloads as local processes: what is particular to them, on real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beamline_contract.workload import Workload
from beamline_sdk.deployment.logfile import LogFile
from beamline_sdk.deployment.port import DeploymentRequest, DeploymentStatus, Phase
from beamline_sdk.deployment.process import ProcessDeployments
from beamline_sdk.deployment.supervisor import State, Timing

QUICK = Timing(
    first_backoff_s=0.02,
    max_backoff_s=0.1,
    stop_s=1.0,
    probe_ready_s=0.05,
    probe_timeout_s=0.3,
    deaf_probes=3,
)
SERVE = textwrap.dedent(
    """
    import http.server, os, signal, subprocess, sys, threading
    STATUS, BODY = 200, b"{}"
    class Probe(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(STATUS); self.end_headers(); self.wfile.write(BODY)
        def log_message(self, *_): pass
    def serve():
        http.server.HTTPServer(("127.0.0.1", int(os.environ["METRICS_PORT"])), Probe).serve_forever()
    """
)
CHILD = textwrap.dedent(
    """
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open("child", "w").write(str(child.pid))
    """
)


@pytest.fixture
async def deployments(tmp_path: Path) -> AsyncIterator[ProcessDeployments]:
    adapter = ProcessDeployments(
        tmp_path / "logs",
        cwd=tmp_path,
        timing=QUICK,
        environ={"PATH": os.environ["PATH"], "SECRET_OF_MINE": "x", "A_KEY": "k"},
    )
    yield adapter
    await adapter.stop()


def request(
    code: str, *, hash_: str = "one", env: list[dict[str, Any]] | None = None, **workload: Any
) -> DeploymentRequest:
    described = {
        "image": "any",
        "command": [sys.executable, "-c", SERVE + textwrap.dedent(code)],
        "env": env or [],
        **workload,
    }
    return DeploymentRequest(
        namespace="default",
        name="guard",
        owner_uid="u",
        generation=1,
        workload=Workload.model_validate(described),
        replicas=1,
        env={"NATS_URL": "nats://here"},
        hash=hash_,
    )


async def until(
    deployments: ProcessDeployments, holds: Callable[[DeploymentStatus], bool], what: str = "the state"
) -> DeploymentStatus:
    status = await deployments.get_status("default", "guard")
    for _ in range(1500):
        status = await deployments.get_status("default", "guard")
        if holds(status):
            return status
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} did not come: {status}")


def ready(hash_: str = "one") -> Callable[[DeploymentStatus], bool]:
    return lambda status: status.phase is Phase.READY and status.hash == hash_


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int) -> bool:
    for _ in range(500):
        if not is_alive(pid):
            return True
        time.sleep(0.02)
    return False


SECRET_KEY = {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "key"}}}
NODE_NAME = {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
NOT_RUNNABLE = {
    "an image without a command": ({"command": []}, Phase.NOT_RUNNABLE, "set workload.command"),
    "no such file": ({"command": ["/no/such"]}, Phase.NOT_RUNNABLE, "'/no/such' is not on this machine"),
    "no such program": ({"command": ["no-such-thing"]}, Phase.NOT_RUNNABLE, "not on this machine"),
    "a key that nobody has set": (
        {"env": [SECRET_KEY]},
        Phase.CREDENTIALS_MISSING,
        "OPENAI_API_KEY is not set",
    ),
    "a whole Secret": ({"envFrom": [{"secretRef": {"name": "ai"}}]}, Phase.CREDENTIALS_MISSING, "'ai'"),
    "a field of a pod": ({"env": [NODE_NAME]}, Phase.NOT_RUNNABLE, "only a pod has"),
}


@pytest.mark.parametrize(("workload", "phase", "words"), NOT_RUNNABLE.values(), ids=NOT_RUNNABLE)
async def test_what_can_not_run_here_says_why(
    deployments: ProcessDeployments, workload: dict[str, Any], phase: Phase, words: str
) -> None:
    await deployments.deploy(request("", **workload))
    status = await deployments.get_status("default", "guard")
    assert status.phase is phase
    assert words in status.message
    assert deployments.processes() == []


async def test_a_process_sees_its_own_variables_and_no_others(
    deployments: ProcessDeployments, tmp_path: Path
) -> None:
    code = "open('seen', 'w').write(repr(dict(os.environ))); serve()"
    env = [
        {"name": "MODE", "value": "echo"},
        {"name": "A_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
    ]
    await deployments.deploy(request(code, env=env))
    await until(deployments, ready())
    seen = (tmp_path / "seen").read_text()
    for expected in ("'MODE': 'echo'", "'A_KEY': 'k'", "'NAMESPACE': 'default'", "'NATS_URL': 'nats://here'"):
        assert expected in seen
    assert "SECRET_OF_MINE" not in seen


async def test_a_process_is_ready_only_when_it_says_so(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("""STATUS, BODY = 503, b'{"reason": "Connecting: no NATS"}'; serve()"""))
    status = await until(deployments, lambda status: bool(status.message))
    assert (status.phase, status.message) == (Phase.PROGRESSING, "Connecting: no NATS")


async def test_a_missing_key_is_a_state_and_no_crash_loop(deployments: ProcessDeployments) -> None:
    await deployments.deploy(
        request("""STATUS, BODY = 503, b'{"reason": "CredentialsMissing: API_KEY is not set"}'; serve()""")
    )
    status = await until(deployments, lambda status: status.phase is Phase.CREDENTIALS_MISSING)
    assert status.message == "API_KEY is not set"
    assert deployments.processes()[0].health.starts == 1


async def test_a_foreign_program_without_probes_is_ready_while_it_lives(
    deployments: ProcessDeployments,
) -> None:
    await deployments.deploy(request("import time; time.sleep(600)", probes={"enabled": False}))
    await until(deployments, ready())


async def test_a_killed_process_comes_back(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("serve()"))
    first = (await until(deployments, ready())).details["pids"][0]
    os.kill(first, signal.SIGKILL)
    after = await until(
        deployments, lambda s: s.phase is Phase.READY and s.details["pids"] != [first], "another process"
    )
    assert is_alive(after.details["pids"][0])


async def test_a_frozen_process_is_replaced(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("serve()"))
    first = (await until(deployments, ready())).details["pids"][0]
    os.kill(first, signal.SIGSTOP)
    await until(
        deployments, lambda s: s.phase is Phase.READY and s.details["pids"] != [first], "another process"
    )
    assert gone(first)


async def test_the_old_version_serves_until_the_new_one_is_ready(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("serve()"))
    old = (await until(deployments, ready())).details["pids"][0]
    await deployments.deploy(request("STATUS = 503; serve()", hash_="two"))
    await until(deployments, lambda s: s.hash == "two" and bool(s.details["pids"]), "the new process")
    assert is_alive(old)
    await deployments.deploy(request("serve() # better", hash_="three"))
    await until(deployments, ready("three"))
    assert gone(old)


async def test_a_version_that_fails_leaves_the_one_before_in_service(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("serve()"))
    old = (await until(deployments, ready())).details["pids"][0]
    await deployments.deploy(request("raise SystemExit('bad build')", hash_="two"))
    status = await until(deployments, lambda s: s.phase is Phase.FAILED)
    assert "bad build" in status.message
    assert "the version before still runs" in status.message
    assert is_alive(old)
    await deployments.deploy(request("serve()"))
    assert (await until(deployments, ready())).details["pids"] == [old]


async def test_a_process_that_ignores_sigterm_is_killed_with_its_children(
    deployments: ProcessDeployments, tmp_path: Path
) -> None:
    await deployments.deploy(request(CHILD + "signal.signal(signal.SIGTERM, signal.SIG_IGN); serve()"))
    pid = (await until(deployments, ready())).details["pids"][0]
    child = int((tmp_path / "child").read_text())
    await deployments.delete("default", "guard")
    assert gone(pid)
    assert gone(child)


async def test_an_edit_during_a_roll_calls_it_off(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("STATUS = 503; serve()"))
    first = (await until(deployments, lambda s: bool(s.details["pids"]))).details["pids"][0]
    await deployments.deploy(request("serve()", hash_="two"))
    await until(deployments, ready("two"))
    assert gone(first)


async def test_what_a_process_writes_is_in_its_log(deployments: ProcessDeployments) -> None:
    await deployments.deploy(request("print('hello from the guard', flush=True); serve()"))
    await until(deployments, ready())
    (info,) = deployments.processes()
    assert info.health.state is State.READY
    assert "hello from the guard" in info.log.read_text()


def test_neither_child_nor_grandchild_survives_the_death_of_the_parent(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_process_deployments import CHILD, QUICK, ready, request, until
        from beamline_sdk.deployment.process import ProcessDeployments

        async def main():
            deployments = ProcessDeployments(Path("logs"), timing=QUICK)
            await deployments.deploy(request(CHILD + "serve()"))
            print((await until(deployments, ready())).details["pids"][0], flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
    grandchild = int((tmp_path / "child").read_text())
    assert is_alive(child)
    assert is_alive(grandchild)
    parent.kill()
    parent.wait()
    assert gone(child)
    assert gone(grandchild)


def test_a_log_file_is_bounded_and_keeps_one_predecessor(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_bytes=100)
    for number in range(50):
        log.write(f"line {number}\n".encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    assert log.last_words == "line 49"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param(
            [b"Traceback ...", b"ValueError: x"], "ValueError: x", id="the last line of a traceback"
        ),
        pytest.param(
            [b'{"level":"error","event":"a.failed","error":"no table"}', b'{"level":"info","event":"bye"}'],
            "a.failed: no table",
            id="the error among JSON lines, not the good-bye after it",
        ),
        pytest.param([], "", id="silence"),
    ],
)
def test_last_words_are_what_a_person_wants_to_read(tmp_path: Path, lines: list[bytes], words: str) -> None:
    log = LogFile(tmp_path / "a.log")
    for line in lines:
        log.write(line)
    assert log.last_words == words
