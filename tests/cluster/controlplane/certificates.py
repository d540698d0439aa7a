"""The certificates and kubeconfigs of one throw-away control plane, made with the openssl command line.

Elliptic-curve keys: nine of them take a fraction of a second, where RSA takes several.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from .binaries import NoControlPlaneError

CONTEXT = "beamline-local"
_DAYS = "7"
_SERVER_NAMES = "subjectAltName=IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes.default.svc"
_CLIENTS = {"admin": "/O=system:masters/CN=admin", "controllers": "/CN=system:kube-controller-manager"}


def make(folder: Path, port: int) -> None:
    """Writes ca, server, client and service account keys and one kubeconfig per client into ``folder``."""
    if shutil.which("openssl") is None:
        raise NoControlPlaneError(
            "a control plane for tests needs the `openssl` command: install the package openssl"
        )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(folder, "req", "-x509", *new_key, "-days", _DAYS, "-subj", "/CN=beamline-tests",
             "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    signed = {"server": ("/CN=kube-apiserver", _SERVER_NAMES)}
    signed |= {name: (subject, "extendedKeyUsage=clientAuth") for name, subject in _CLIENTS.items()}
    for serial, (name, (subject, extension)) in enumerate(signed.items(), start=2):
        (folder / f"{name}.ext").write_text(extension)
        _openssl(folder, "req", *new_key, "-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt",
                 "-CAkey", "ca.key", "-days", _DAYS, "-set_serial", str(serial),
                 "-extfile", f"{name}.ext", "-out", f"{name}.crt")  # fmt: skip
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")
    _openssl(folder, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    for name in _CLIENTS:
        (folder / f"{name}.kubeconfig").write_text(_kubeconfig(folder, name, port))


def _kubeconfig(folder: Path, name: str, port: int) -> str:
    server = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(folder / f"{name}.crt"), "client-key": str(folder / f"{name}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "current-context": CONTEXT,
    }
    return json.dumps(document, indent=1)  # JSON is YAML


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoControlPlaneError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-300:]}")
