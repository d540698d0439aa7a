"""One control plane of our own: etcd, kube-apiserver and kube-controller-manager as child processes.

There is no scheduler and no node, so no pod ever runs; everything else is real: schema and CEL validation,
defaulting, status and scale subresources, RBAC, Pod Security admission, server-side apply, the deployment and
replica set controllers, namespaces and garbage collection.

Life: :meth:`ControlPlane.start` starts etcd, then the API server, waits until it is ready, then the
controllers. :meth:`stop` ends them in the reverse order. All three ask the kernel to be killed when the
*thread* that started them ends, so ``start`` belongs on the main thread; nothing outlives the process that
owns the plane, even a killed one.
"""

from __future__ import annotations

import ctypes
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from . import audit, certificates
from .binaries import APISERVER, CONTROLLERS, ETCD, Binaries, NoControlPlaneError

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
_START_SECONDS = 90.0
_STOP_SECONDS = 10.0
_CONTROLLERS = (
    "garbage-collector-controller", "deployment-controller", "replicaset-controller", "namespace-controller",
    "serviceaccount-controller", "root-ca-certificate-publisher-controller", "endpointslice-controller",
    "disruption-controller", "horizontal-pod-autoscaler-controller",
)  # fmt: skip


class ControlPlane:
    """etcd, API server and controllers with their data in a temporary folder, which :meth:`stop` removes."""

    def __init__(self, binaries: Binaries) -> None:
        self._binaries = binaries
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="beamline-test-cp-"))
        self.port, self._etcd_port = _free_ports(2)

    @property
    def kubeconfig(self) -> Path:
        """Full rights (group system:masters)."""
        return self.folder / "admin.kubeconfig"

    def start(self) -> None:
        """Starts everything; a few seconds. Raises :class:`NoControlPlaneError` with the end of the log."""
        try:
            certificates.make(self.folder, self.port)
            self._spawn(
                ETCD, "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
                "--listen-client-urls", f"http://127.0.0.1:{self._etcd_port}",
                "--advertise-client-urls", f"http://127.0.0.1:{self._etcd_port}",
                "--listen-peer-urls", "http://127.0.0.1:0",
            )  # fmt: skip
            self.start_apiserver()
            self._spawn(
                CONTROLLERS, "--kubeconfig", str(self.folder / "controllers.kubeconfig"),
                "--controllers", ",".join(_CONTROLLERS), "--leader-elect=false", "--secure-port", "0",
                "--root-ca-file", self._file("ca.crt"),
                "--service-account-private-key-file", self._file("sa.key"),
                "--use-service-account-credentials=true", "--concurrent-gc-syncs", "5",
            )  # fmt: skip
        except BaseException:
            self.stop()
            raise

    def start_apiserver(self) -> None:
        """Starts the API server and waits until ``/readyz`` says so."""
        self._spawn(
            APISERVER, "--etcd-servers", f"http://127.0.0.1:{self._etcd_port}",
            "--secure-port", str(self.port), "--bind-address", "127.0.0.1",
            "--endpoint-reconciler-type", "none",
            "--tls-cert-file", self._file("server.crt"), "--tls-private-key-file", self._file("server.key"),
            "--client-ca-file", self._file("ca.crt"), "--authorization-mode", "Node,RBAC",
            "--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", self._file("sa.pub"),
            "--service-account-signing-key-file", self._file("sa.key"), "--allow-privileged=true",
            *audit.arguments(self.folder),
        )  # fmt: skip
        give_up = time.monotonic() + _START_SECONDS
        while not self._ready():
            for name in (ETCD, APISERVER):
                if self._running[name].poll() is not None:
                    raise NoControlPlaneError(f"{name} ended at its start: {self._last_lines(name)}")
            if time.monotonic() > give_up:
                raise NoControlPlaneError(f"the API server is not ready: {self._last_lines(APISERVER)}")
            time.sleep(0.05)

    def stop_apiserver(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends the API server; etcd keeps its data. The default stands for a crash, SIGTERM for a restart."""
        self._end(APISERVER, how)

    def stop(self) -> None:
        """Ends everything and removes the folder. Fine to call twice."""
        for name in (CONTROLLERS, APISERVER, ETCD):
            self._end(name, signal.SIGKILL)  # the data is thrown away, so there is nothing to finish
        shutil.rmtree(self.folder, ignore_errors=True)

    def broken(self) -> str | None:
        """Which part has ended unasked, or None."""
        return next((name for name, process in self._running.items() if process.poll() is not None), None)

    def pids(self) -> dict[str, int]:
        """The process of each part that runs, by its name."""
        return {name: process.pid for name, process in self._running.items()}

    def _file(self, name: str) -> str:
        return str(self.folder / name)

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [self._binaries.path(name), *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 -- the child only calls prctl
            )

    def _end(self, name: str, how: signal.Signals) -> None:
        process = self._running.pop(name, None)
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ready(self) -> bool:
        trust = ssl.create_default_context(cafile=self._file("ca.crt"))
        trust.load_cert_chain(self._file("admin.crt"), self._file("admin.key"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=2, context=trust)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except OSError:
            return False
        finally:
            connection.close()

    def _last_lines(self, name: str) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-5:])


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
