"""TLS: the connection goes to the judged address, and the certificate must be the name's."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest

from beamline_extensions.model_api.addresses import AddressRule, parse_networks
from beamline_extensions.model_api.calls import Written, head_of
from beamline_extensions.model_api.transport import ModelApiTransport
from harness.model_api import fake_api, gpt


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for llm.example, and its key beside it."""
    if shutil.which("openssl") is None:
        reason = "the `openssl` command is not on PATH: install the package openssl to run the TLS tests"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    names = ["-addext", "subjectAltName=DNS:llm.example", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *arguments.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "cert.pem"


async def ask(host: str, certificate: Path, *, trusted: bool = True) -> httpx2.Response:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, certificate.with_name("key.pem"))
    client = ssl.create_default_context(cafile=str(certificate) if trusted else None)

    async def resolver(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    transport = ModelApiTransport(AddressRule(parse_networks("private")), resolver=resolver, tls=client)
    async with fake_api(server) as api:
        request = httpx2.Request("POST", f"https://{host}:{api.port}/v1/chat/completions")
        origin = ("https", host, api.port)
        try:
            call = Written(origin, head_of(request), request, client=None)
            answer = await transport.ask(call, b'{"model":"m"}')
            await answer.aread()
        finally:
            await transport.aclose()
        return answer


async def test_the_certificate_of_the_name_is_accepted(certificate: Path) -> None:
    assert (await ask("llm.example", certificate)).json() == gpt("m")


async def test_the_certificate_of_another_name_is_not(certificate: Path) -> None:
    with pytest.raises(httpx2.ConnectError):
        await ask("other.example", certificate)


async def test_a_certificate_that_nobody_trusts_is_not(certificate: Path) -> None:
    with pytest.raises(httpx2.ConnectError):
        await ask("llm.example", certificate, trusted=False)
