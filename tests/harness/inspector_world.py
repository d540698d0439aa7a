"""What stands behind the inspector in the browser's tests: ``beamline up`` with PostgreSQL, NATS, the
reconcile core, extensions, the admin process, and a second router beside its own. All are real processes.

People log in with tokens of an identity provider of the test, so that each role can be tried. Requests over
NATS need an API key, as in a cluster with `router.auth.natsKeys: required`; ``keys`` has one for each tenant.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from beamline_router.core.api_keys import new_key

from .laptop import ROOT, Up
from .oidc import AUDIENCE, Provider, served
from .processes import BEAMLINE, Process, eventually, free_port

TENANTS = ("acme", "shop")
MANIFESTS = ROOT / "tests" / "browser" / "manifests"


class InspectorWorld:
    """``up`` and the second router; ``url`` is where the inspector is."""

    def __init__(self, up: Up, provider: Provider, keys: Mapping[str, str]) -> None:
        self.up = up
        self.keys = keys
        self.provider = provider
        found = re.search(r"Admin API: (\S+)/api/v1 with 'Authorization: Bearer (\S+)'", up.said)
        assert found is not None, up.said
        self.url, self.local_token = found.groups()
        self.api = httpx2.Client(
            base_url=f"{self.url}/api/v1",
            headers={"authorization": f"Bearer {self.local_token}"},
            timeout=40.0,
        )
        self.second = self._second_router()

    def token(self, role: str = "admin", tenants: Any = "*", subject: str | None = None) -> str:
        """A token of the identity provider, for a person called like the role."""
        return self.provider.token(role, tenants, sub=subject or f"{role}@example.com")

    def route(self, prompt: str, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx2.Response:
        """``POST /v1/route`` at the first router."""
        body = {"prompt": prompt, **fields}
        return httpx2.post(f"{self.up.url}/v1/route", json=body, headers=dict(headers or {}), timeout=30.0)

    def providers(self, calls: int) -> dict[str, int]:
        """How often which provider answered, of so many requests at both routers in turn."""
        counts: dict[str, int] = {}
        with httpx2.Client(timeout=30.0) as client:
            for number in range(calls):
                router = (self.up.url, f"http://127.0.0.1:{self.second.port}")[number % 2]
                answer = client.post(f"{router}/v1/route", json={"prompt": f"call {number}"})
                assert answer.status_code == 200, answer.text
                name = answer.json()["provider_id"]
                counts[name] = counts.get(name, 0) + 1
        return counts

    def spec(self, name: str) -> dict[str, Any]:
        """The spec in the file of an object."""
        for path in self.up.folder.glob("*.yaml"):
            for document in yaml.safe_load_all(path.read_text()):
                if document and document["metadata"]["name"] == name:
                    return dict(document["spec"])
        raise AssertionError(name)

    def serves(self, extension: str) -> bool:
        """Whether its object says Ready: calls before that are failures, and would open its breaker."""
        found = self.api.get(f"/extensions/{extension}/conditions").json()["conditions"]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in found)

    def routers_ready(self) -> bool:
        """Whether both routers answer the admin process."""
        answer = self.api.get("/routers")
        return answer.status_code == 200 and len(answer.json()["routers"]) == 2

    def texts(self) -> dict[str, str]:
        """Everything that a process of the world has written in words, by its file."""
        paths = [path for path in self.up.state.rglob("*") if path.suffix in {".log", ".json"}]
        found = {
            path.name: path.read_text(errors="replace") for path in (*paths, self.up.output, self.second.log)
        }
        assert {"admin.log", "router.log"} <= found.keys(), found.keys()
        return found

    def close(self) -> None:
        """Stops everything."""
        self.api.close()
        self.second.stop()
        self.up.stop()

    def _second_router(self) -> Process:
        """A router like the one of ``up``, with its environment, on a port of its own."""
        environ = _environ_of(self._router_pid())
        port = free_port()
        folder = self.up.output.parent
        env = {
            **environ,
            "BEAMLINE_HTTP_PORT": str(port),
            "BEAMLINE_SNAPSHOT_FILE": str(folder / "second-snapshot.json"),
        }
        return Process("second router", (*BEAMLINE, "router"), env, folder / "second.log", port)

    def _router_pid(self) -> int:
        port = self.up.url.rpartition(":")[2].encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    environ = (entry / "environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"BEAMLINE_HTTP_PORT=" + port in environ:
                    return int(entry.name)
        raise AssertionError(f"no process has the router's port {port!r}")


@contextmanager
def inspector_world(folder: Path) -> Iterator[InspectorWorld]:
    """Starts everything, and stops it whatever happens."""
    manifests = folder / "manifests"
    shutil.copytree(MANIFESTS, manifests)
    made = {tenant: new_key(tenant, None, None, secrets.token_bytes) for tenant in TENANTS}
    file = folder / "keys.yaml"
    file.write_text(yaml.safe_dump({"keys": [entry for _, entry in made.values()]}))
    with served() as provider:
        environ = {
            "BEAMLINE_API_KEYS": str(file),
            "BEAMLINE_ANONYMOUS": "true",
            "BEAMLINE_NATS_KEYS": "required",
            "BEAMLINE_ADMIN_OIDC_ISSUER": provider.issuer,
            "BEAMLINE_ADMIN_OIDC_AUDIENCE": AUDIENCE,
            "BEAMLINE_TRAIL_CONTENT": "true",
        }
        up = Up(folder, folder=manifests, environ=environ)
        world: InspectorWorld | None = None
        try:
            keys = {tenant: key for tenant, (key, _) in made.items()}
            world = InspectorWorld(up.ready(), provider, keys)
            world.second.start()
            eventually(world.routers_ready, "both routers answer")
            yield world
        finally:
            if world is None:
                up.stop()
            else:
                world.close()


def _environ_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
