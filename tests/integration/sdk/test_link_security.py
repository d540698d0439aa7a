"""TLS, mutual TLS, handshake first and nkeys, against a real nats-server, on both of the transports."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from beamline_cli.local.nats import LocalNats
from beamline_router.edges.fast_nats import FastTransport
from beamline_router.edges.nats_transport import NatsTransport
from beamline_sdk.link import LinkError, LinkSettings, close, connect
from beamline_sdk.link_security import LinkSecurity

SEED = b"SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
PUBLIC = "UAT6BWCSCWLUKJT6K6MBJJOEOTXZ5AJDOYKNEVRFC7VNO6OA43N4TRNO"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one self-signed certificate, which is its own CA: own.crt, own.key."""
    if shutil.which("openssl") is None:
        reason = "the `openssl` command is not on PATH: install the package openssl to run the TLS tests"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("nats-tls")
    make_certificate(folder)
    (folder / "seed.nk").write_bytes(SEED)
    return folder


def make_certificate(folder: Path) -> None:
    arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=nats"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "own.key", "-out", "own.crt"]
    subprocess.run(["openssl", *arguments.split(), *names], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def secure(certificates: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalNats]:
    """A server that wants TLS; the test's marker adds lines to its ``tls`` block and after it."""
    in_block, after = request.param
    config = configured(tmp_path, certificates, certificates / "own.crt", in_block, after)
    server = LocalNats(extra=("-c", str(config)))
    server.start()
    yield server
    server.stop()


def configured(folder: Path, own: Path, ca: Path, in_block: str, after: str = "") -> Path:
    config = folder / "nats.conf"
    config.write_text(
        f'tls {{ cert_file: "{own}/own.crt", key_file: "{own}/own.key", '
        f'ca_file: "{ca}", timeout: 20 {in_block} }}\n{after}\n'
    )
    return config


TLS = ("", "")
MUTUAL = (", verify: true", "")
FIRST = (
    ', handshake_first: "300ms"',
    "",
)  # and after that in the clear, as the start of the server is watched
NKEY = ("", f"authorization {{ users: [{{nkey: {PUBLIC}}}] }}")


def settings(server: LocalNats, certificates: Path, **changed: object) -> LinkSettings:
    security = LinkSecurity(ca_file=str(certificates / "own.crt"))
    return LinkSettings(
        f"tls://127.0.0.1:{server.port}",
        "test",
        security=replace(security, **changed),  # type: ignore[arg-type]  # fields by name
    )


async def answers(given: LinkSettings) -> None:
    """One request on each transport, answered by another connection of the same settings."""

    async def echo(message: Msg) -> None:
        await message.respond(message.data)

    server = await connect(given, timeout_s=30)
    try:
        await server.subscribe("secure.echo", cb=echo)
        await server.flush()
        for make in (FastTransport, NatsTransport):
            nc = await connect(given, timeout_s=30)
            try:
                transport = make()
                transport.attach(nc)
                assert await transport.request("secure.echo", b"x" * 100_000, {}, 20.0) == b"x" * 100_000
            finally:
                await close(nc, grace_s=1)
    finally:
        await close(server, grace_s=1)


@pytest.mark.parametrize("secure", [TLS], indirect=True)
async def test_a_private_ca_is_enough_for_tls(secure: LocalNats, certificates: Path) -> None:
    await answers(settings(secure, certificates))


@pytest.mark.parametrize("secure", [TLS], indirect=True)
async def test_a_server_of_another_ca_is_not_talked_to(secure: LocalNats, certificates: Path) -> None:
    with pytest.raises(LinkError, match="certificate verify failed"):
        await connect(settings(secure, certificates, ca_file=None), timeout_s=2)


@pytest.mark.parametrize("secure", [MUTUAL], indirect=True)
async def test_a_server_that_wants_a_certificate_gets_ours(secure: LocalNats, certificates: Path) -> None:
    own = {"certificate_file": str(certificates / "own.crt"), "key_file": str(certificates / "own.key")}
    await answers(settings(secure, certificates, **own))
    with pytest.raises(LinkError):
        await connect(settings(secure, certificates), timeout_s=1)


@pytest.mark.parametrize("secure", [MUTUAL], indirect=True)
async def test_a_certificate_that_was_renewed_is_shown_from_then_on_and_one_that_can_not_be_read_is_not(
    secure: LocalNats, certificates: Path, tmp_path: Path, tools: Any
) -> None:
    mine, renewed = tmp_path / "mine", tmp_path / "renewed"
    shutil.copytree(certificates, mine)
    own = {"certificate_file": str(mine / "own.crt"), "key_file": str(mine / "own.key")}
    nc = await connect(settings(secure, certificates, **own), timeout_s=30)
    try:
        (mine / "own.crt").write_text("half a file")
        secure.stop()
        secure.start()
        await tools.eventually(lambda: nc.stats["reconnects"] == 1, "it comes back with the last good one")
        renewed.mkdir()
        make_certificate(renewed)
        configured(tmp_path, certificates, renewed / "own.crt", MUTUAL[0])
        shutil.copytree(renewed, mine, dirs_exist_ok=True)
        secure.stop()
        secure.start()
        await tools.eventually(lambda: nc.stats["reconnects"] == 2, "and with the new one")
        await nc.flush(5)
    finally:
        await close(nc, grace_s=1)


@pytest.mark.parametrize("secure", [FIRST], indirect=True)
async def test_tls_comes_before_the_first_word_where_that_is_wanted(
    secure: LocalNats, certificates: Path, nats_server: LocalNats
) -> None:
    await answers(settings(secure, certificates, tls_first=True))
    with pytest.raises(LinkError):
        await connect(settings(nats_server, certificates, tls_first=True), timeout_s=1)


@pytest.mark.parametrize("secure", [NKEY], indirect=True)
async def test_an_nkey_proves_who_we_are(secure: LocalNats, certificates: Path) -> None:
    await answers(settings(secure, certificates, nkey_file=str(certificates / "seed.nk")))
    with pytest.raises(LinkError):
        await connect(settings(secure, certificates), timeout_s=1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"NATS_CA_FILE": "/nowhere"}, "/nowhere does not exist: check NATS_CA_FILE"),
        ({"NATS_NKEY_FILE": "/nowhere"}, "/nowhere does not exist: check NATS_NKEY_FILE"),
        ({"NATS_KEY_FILE": __file__}, "NATS_CERTIFICATE_FILE and NATS_KEY_FILE belong together"),
        ({"NATS_CA_FILE": __file__}, "the files for TLS to NATS can't be used"),
    ],
    ids=[
        "a CA that is not there",
        "a seed that is not there",
        "a key without certificate",
        "a CA that is none",
    ],
)
async def test_a_file_that_can_not_be_used_is_one_sentence(environment: dict[str, str], message: str) -> None:
    given = LinkSettings("tls://127.0.0.1:1", "test", security=LinkSecurity.from_environment(environment))
    with pytest.raises(LinkError, match=message):
        await connect(given, timeout_s=1)


def test_the_environment_is_read_where_nothing_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_CA_FILE", "/ca")
    monkeypatch.setenv("NATS_TLS_FIRST", "true")
    monkeypatch.setenv("NATS_NKEY_FILE", "")
    assert LinkSettings("x", "y").security == LinkSecurity(ca_file="/ca", tls_first=True)
