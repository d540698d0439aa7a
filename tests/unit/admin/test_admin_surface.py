"""What the admin process shows to the outside, without a server: document, settings, templates."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from beamline_admin import openapi
from beamline_admin.problems import STATUS, TITLE, AdminCode, ProblemError
from beamline_admin.settings import AdminSettings
from beamline_contract.errors import ErrorCode

DOCUMENT = Path(__file__).parents[3] / "docs" / "openapi" / "admin.json"
INSPECTOR = files("beamline_admin") / "inspector"
FOLDER = Path(str(INSPECTOR))
STATIC = sorted(entry.name for entry in (INSPECTOR / "static").iterdir())
TEMPLATES = sorted(
    path.relative_to(FOLDER / "templates").as_posix() for path in (FOLDER / "templates").rglob("*.html")
)


def test_the_committed_document_is_fresh(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert openapi.main(["--check", str(DOCUMENT)]) == 0
    copy = tmp_path / "folder" / "admin.json"
    assert openapi.main(["--write", str(copy)]) == 0
    copy.write_text(copy.read_text() + " ")
    assert openapi.main(["--check", str(copy)]) == 1
    assert "is stale: python -m beamline_admin.openapi --write" in capsys.readouterr().err


def test_every_api_route_asks_for_a_token_and_states_its_problems() -> None:
    document = openapi.document()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path.startswith("/api/"):
                assert operation["security"] == [{"HTTPBearer": []}], path
                success = set(operation["responses"]) - {"4XX", "5XX"}
                assert success in ({"200"}, {"201"}), path
                assert list(operation["responses"]["4XX"]["content"]) == ["application/problem+json"]
            else:
                assert path in {"/healthz", "/readyz", "/metrics"}


def test_the_codes_are_a_closed_list_each_with_status_and_title() -> None:
    codes = {*ErrorCode, *AdminCode}
    assert set(STATUS) == set(TITLE) == codes
    schemas = openapi.document()["components"]["schemas"]
    listed = {word for ref in ("ErrorCode", "AdminCode") for word in schemas[ref]["enum"]}
    assert listed == {code.value for code in codes}
    for code in codes:
        document = ProblemError(code, "x").document("r")
        assert (document.code, document.status) == (code, STATUS[code])


def test_every_reference_in_the_document_leads_somewhere() -> None:
    text = openapi.text()
    schemas = openapi.document()["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= set(schemas)
    assert "#/$defs/" not in text


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_holds_a_script_a_style_an_unescaped_value_or_another_host(name: str) -> None:
    text = (INSPECTOR / "templates" / name).read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|\|\s*safe|autoescape|https?:|\burl\(", text)
    for script in re.findall(r"<script.*?</script>|<script.*", text):
        assert re.fullmatch(r'<script (type="module" )?src="/static/[a-z-]+\.js"></script>', script), script


@pytest.mark.parametrize("name", STATIC)
def test_no_static_file_loads_from_elsewhere_or_makes_markup_of_text(name: str) -> None:
    text = (INSPECTOR / "static" / name).read_text()
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)|url\(|@import", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )


def test_every_style_sheet_is_in_a_layer_and_colours_are_tokens() -> None:
    sheets = {name: (INSPECTOR / "static" / name).read_text() for name in STATIC if name.endswith(".css")}
    for name, text in sheets.items():
        assert "@layer" in text, name
        if name != "tokens.css":
            assert not re.search(
                r"#[0-9a-f]{3,8}\b|rgb\(|hsl\(", re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
            ), name
    assert "light-dark(" in sheets["tokens.css"]


def test_every_start_without_a_token_has_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMLINE_ADMIN_TOKEN", "")
    one, other = AdminSettings.from_environment(), AdminSettings.from_environment()
    assert one.token_is_generated
    assert len(one.token.get_secret_value()) >= 43
    assert one.token != other.token
    assert one.token.get_secret_value() not in repr(one)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        pytest.param("BEAMLINE_ADMIN_TOKEN", "hunter2", "at least 16 characters", id="a short token"),
        pytest.param(
            "BEAMLINE_ADMIN_HTTP_PORT", "99999", "BEAMLINE_ADMIN_HTTP_PORT", id="an impossible port"
        ),
        pytest.param("LOG_LEVEL", "loud", "must be one of debug", id="an unknown log level"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said) as raised:
        AdminSettings.from_environment()
    assert value not in str(raised.value)


def test_a_port_of_the_router_is_not_taken_for_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMLINE_HTTP_PORT", "8080")
    monkeypatch.setenv("BEAMLINE_ADMIN_HTTP_PORT", "9000")
    monkeypatch.setenv("BEAMLINE_ADMIN_TOKEN", "sixteen-characters")
    settings = AdminSettings.from_environment()
    assert (settings.http_port, settings.token_is_generated) == (9000, False)
