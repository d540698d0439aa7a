"""``beamline invoke``: one request to a router."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from beamline_cli.faults import CliError, ExitCode
from beamline_cli.output import as_json, complain, paint, say


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(name="invoke")(invoke)


def invoke(
    prompt: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    *,
    tenant: Annotated[str | None, typer.Option(help="tenant_id of the request.")] = None,
    environment: Annotated[str | None, typer.Option(help="Environment of the request, such as prod.")] = None,
    model: Annotated[str | None, typer.Option(help="Model to ask for.")] = None,
    policy: Annotated[str | None, typer.Option(help="RoutingPolicy to use, whatever matches.")] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="BEAMLINE_ROUTER_URL", help="Router; default: that of the running `beamline up`."
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(envvar="BEAMLINE_STATE", help="State folder of the `beamline up` that is meant."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(envvar="BEAMLINE_API_KEY", help="API key; better in the environment than here."),
    ] = None,
    expect: Annotated[
        str | None,
        typer.Option(metavar="CODE", help="Succeed only where the router refuses with this code."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for the answer.")] = 60.0,
) -> None:
    """Send a prompt to a router and print the answer.

    The steps that it took go to stderr.
    """
    import sys

    if url is None:
        from beamline_cli.up.state import find_running

        url = find_running(state).url
    request: dict[str, Any] = {"prompt": sys.stdin.read() if prompt == "-" else prompt}
    optional = {"tenant_id": tenant, "environment": environment, "model": model, "policy": policy}
    request.update((name, value) for name, value in optional.items() if value is not None)
    status, answer = post(f"{url.rstrip('/')}/v1/route", request, timeout, key)
    if expect is not None:
        _expected(expect, status, answer)
        return
    if json:
        say(as_json(answer))
    elif status == 200:
        say(str(answer.get("output", "")))
    if not json:
        for step in answer.get("steps") or ():
            complain(paint(f"  {_step(step)}", "dim", sys.stderr))
    if status != 200:
        error = answer.get("error") or {}
        raise CliError(
            f"{error.get('code', status)}: {error.get('message', 'the router refused the request')}"
        )


def _expected(code: str, status: int, answer: dict[str, Any]) -> None:
    error = answer.get("error") or {}
    found = error.get("code", "an answer" if status == 200 else status)
    if found != code:
        raise CliError(f"expected {code}, got {found}: {error.get('message', 'the router answered')}")
    say(f"{code}, as expected: {error.get('message')}")


def post(
    url: str, document: dict[str, Any], timeout: float, key: str | None = None
) -> tuple[int, dict[str, Any]]:
    """POSTs JSON and reads JSON, whatever the status. Raises :class:`CliError`."""
    import http.client
    from urllib.parse import urlsplit

    import orjson

    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise CliError(
            f"{url!r} is not the address of a router: it looks like http://127.0.0.1:8080", ExitCode.USAGE
        )
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname, parts.port, timeout=timeout)
        try:
            body = orjson.dumps(document)
            headers = {"content-type": "application/json"}
            if key:
                headers["authorization"] = f"Bearer {key}"
            connection.request("POST", parts.path or "/", body, headers)
            response = connection.getresponse()
            answer = orjson.loads(response.read())
        finally:
            connection.close()
    except TimeoutError as error:
        raise CliError(f"{url} did not answer within {timeout:g} s", ExitCode.UNAVAILABLE) from error
    except (OSError, http.client.HTTPException) as error:
        raise CliError(f"{url} does not answer: {error}", ExitCode.UNAVAILABLE) from error
    except (orjson.JSONDecodeError, ValueError) as error:
        raise CliError(
            f"{url} answered something that is not JSON: is it a router?", ExitCode.UNAVAILABLE
        ) from error
    if not isinstance(answer, dict):
        raise CliError(
            f"{url} answered something that is not an object: is it a router?", ExitCode.UNAVAILABLE
        )
    return response.status, answer


def _step(step: dict[str, Any]) -> str:
    words = [str(step.get("name") or step.get("extension_id") or step.get("step") or "?")]
    words.append(str(step.get("outcome") or step.get("status") or ""))
    for key in ("latency_ms", "ms"):
        if key in step:
            words.append(f"{float(step[key]):.1f} ms")
            break
    return "  ".join(word for word in words if word)
