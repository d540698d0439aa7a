"""A Kubernetes API as tests use it: through kubectl, through the Python client, or by plain requests."""

from __future__ import annotations

import atexit
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import urllib3

from .chartaccount import chosen_mode, make_account, write_kubeconfig
from .plane import ControlPlane

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CRDS = sorted((Path(__file__).resolve().parents[3] / "crds").glob("*.yaml"))


@dataclass(frozen=True)
class Answer:
    """What the API server answered; ``body`` is the object, or a Status."""

    status: int
    body: dict[str, Any]

    @property
    def accepted(self) -> bool:
        return self.status < 300

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field path, message) of each fault that the server found."""
        causes = (self.body.get("details") or {}).get("causes") or []
        return [(str(cause.get("field", "")), str(cause.get("message", ""))) for cause in causes]


@dataclass(frozen=True)
class Cluster:
    """A reachable API server that knows our custom resources.

    ``plane`` is set where it is this test's own.
    """

    kubeconfig: Path
    kubectl_path: str = "kubectl"
    plane: ControlPlane | None = None

    def kubectl(
        self, *arguments: str, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl. With ``check`` a failure is an error that shows what kubectl said."""
        command = [self.kubectl_path, f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False, timeout=120)
        if check and done.returncode != 0:
            raise AssertionError(
                f"kubectl {' '.join(arguments)} failed ({done.returncode}): {done.stderr.strip()}"
            )
        return done

    def operator_kubeconfig(self, *namespaces: str) -> Path:
        """What operators that serve ``namespaces`` log in with: the administrator's, or, where the
        environment asks for it, that of the chart's own account with the chart's own rights.
        """
        mode = chosen_mode()
        if mode is None:
            return self.kubeconfig
        with self.client() as client:
            rest = Rest(client)
        try:
            token = make_account(rest, mode, namespaces)
        finally:
            rest.close()
        folder = Path(tempfile.mkdtemp(prefix="beamline-account-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return write_kubeconfig(self.kubeconfig, token, folder / "kubeconfig")

    def client(self) -> ApiClient:
        """A new client of the `kubernetes` package; close it, or use it in a ``with``."""
        from kubernetes.config import new_client_from_config

        return new_client_from_config(str(self.kubeconfig), persist_config=False)

    def apply_crds(self) -> None:
        """Applies crds/*.yaml and waits until both are Established."""
        files = [f"--filename={path}" for path in CRDS]
        self.kubectl("apply", "--server-side", "--force-conflicts", *files)
        wait = ("wait", "--for=condition=Established", "--timeout=60s", *files)
        if self.kubectl(*wait, check=False).returncode != 0:  # it gives up on one without any condition yet
            self.kubectl(*wait)

    def stop_apiserver(self) -> None:
        """Kills the API server. Only on a cluster of one's own (fixture ``own_cluster``)."""
        assert self.plane is not None, "a shared API server must not be stopped: use the fixture own_cluster"
        self.plane.stop_apiserver()

    def start_apiserver(self) -> None:
        """Starts it again, with the same address, certificates and data."""
        assert self.plane is not None, "only the fixture own_cluster can be restarted"
        self.plane.start_apiserver()


class LineStream:
    """Lines of a response that goes on until it is closed, also from another thread."""

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self._answer = answer
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        try:
            for part in self._answer.stream(65_536):
                *lines, rest = (rest + part).split(b"\n")
                yield from lines
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError):
            if not self._closed:
                raise

    def close(self) -> None:
        self._closed = True
        self._answer.shutdown()
        self._answer.close()


class Rest:
    """Plain requests over one kept connection: a hundred times cheaper than a kubectl process."""

    def __init__(self, client: ApiClient) -> None:
        settings = client.configuration
        self._host: str = settings.host
        self._headers: dict[str, str] = {"Accept": "application/json"}
        token = settings.get_api_key_with_prefix("authorization")
        if token:
            self._headers["Authorization"] = token
        self._pool = urllib3.PoolManager(
            ca_certs=settings.ssl_ca_cert,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            retries=False,
        )

    def close(self) -> None:
        self._pool.clear()

    def request(
        self, method: str, path: str, body: object = None, content: str = "application/json", **query: str
    ) -> Answer:
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        sent = None if body is None else json.dumps(body)
        answer = self._pool.request(
            method, url, body=sent, headers={**self._headers, "Content-Type": content}
        )
        return Answer(answer.status, json.loads(answer.data or b"{}"))

    def stream(self, path: str) -> LineStream:
        """The lines of a long answer, such as a watch, as they come."""
        answer = self._pool.request(
            "GET", f"{self._host}{path}", headers=self._headers, preload_content=False
        )
        return LineStream(answer)

    def create(self, namespace: str, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Creates an object of ours, with strict field validation as kubectl asks for it."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        return self.request("POST", self.path(namespace, manifest["kind"]), manifest, **query)

    def replace(self, namespace: str, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Answer:
        """Replaces an object of ours by a new version."""
        query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
        path = self.path(namespace, manifest["kind"], manifest["metadata"]["name"])
        return self.request("PUT", path, manifest, **query)

    @staticmethod
    def path(namespace: str, kind: str, *rest: str) -> str:
        plural = {"Extension": "extensions", "RoutingPolicy": "routingpolicies"}[kind]
        return "/".join(["/apis/beamline.io/v1alpha1/namespaces", namespace, plural, *rest])
