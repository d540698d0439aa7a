"""The files of a new extension: which there are for a language, and what is in them.

A template's path says which file it makes: ``.j2`` goes away, and for Python ``extension`` becomes the id,
because a module is imported by its name. Rendering is pure; only :func:`write` touches a disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from keyword import iskeyword
from pathlib import Path
from typing import Final, Literal, get_args

from jinja2 import Environment, FunctionLoader, StrictUndefined

from beamline_contract import __version__
from beamline_contract.names import NAME_PATTERN, ExtensionType, derive_subject, object_id

Language = Literal["python", "go", "node"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

_TEMPLATES: Final = resources.files("beamline_cli.scaffold") / "templates"
_SHARED: Final = ("README.md", "manifest.yaml")
_TITLES: Final[Mapping[Language, str]] = {"python": "Python", "go": "Go", "node": "Node.js"}
_INSTALL: Final[Mapping[Language, str]] = {
    "python": "pip install -r requirements.txt pytest",
    "go": "go build -o {name} .",
    "node": "npm install",
}
_TEST: Final[Mapping[Language, str]] = {"python": "pytest", "go": "go test ./...", "node": "npm test"}
_RUN: Final[Mapping[Language, str]] = {
    "python": "python {id}.py",
    "go": "./{name}",
    "node": "node extension.js",
}
_TAKEN: Final = {"asyncio", "beamline_sdk", "request", "config", "settings", "pretend", "run", "any"}


class BadNameError(ValueError):
    """The name can't be one; the text says why."""


class FilesExistError(FileExistsError):
    """The folder holds files that would be overwritten; ``names`` are theirs."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass(frozen=True)
class Extension:
    """What is to be made. ``name`` is the object's (``my-guard``), ``id`` the registry's (``my_guard``)."""

    name: str
    kind: ExtensionType
    language: Language

    def __post_init__(self) -> None:
        fault = name_fault(self.name, self.language)
        if fault is not None:
            raise BadNameError(f"{self.name!r} {fault}")

    @property
    def id(self) -> str:
        """The registry id, and in Python the module's name."""
        return object_id(self.name)

    @property
    def subject(self) -> str:
        """Where it listens."""
        return derive_subject(self.kind, self.id)

    def install(self) -> str:
        """The command that builds it, or gets what it needs."""
        return self._command(_INSTALL)

    def test(self) -> str:
        """The command that runs its tests."""
        return self._command(_TEST)

    def run(self) -> str:
        """The command that serves it."""
        return self._command(_RUN)

    def _command(self, commands: Mapping[Language, str]) -> str:
        return commands[self.language].format(name=self.name, id=self.id)


def name_fault(name: str, language: Language) -> str | None:
    """What is wrong with ``name`` as that of an extension, or None."""
    if not re.fullmatch(NAME_PATTERN, name):
        return "must start with a letter, and hold small letters, digits and '-' only, at most 63 characters"
    if language == "python" and (iskeyword(object_id(name)) or object_id(name) in _TAKEN):
        return "is a word that Python code already uses: take another"
    return None


def render(extension: Extension) -> dict[str, str]:
    """Every file by its path in the new folder."""
    environment = Environment(
        loader=FunctionLoader(_load),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 -- the files are code, not HTML
        lstrip_blocks=True,
        trim_blocks=False,
    )
    values = {
        "name": extension.name,
        "id": extension.id,
        "title": extension.name.replace("-", " ").capitalize(),
        "kind": extension.kind,
        "subject": extension.subject,
        "language": extension.language,
        "language_title": _TITLES[extension.language],
        "version": __version__,
        "install": extension.install(),
        "test": extension.test(),
        "run": extension.run(),
    }
    files = {}
    for template in sorted(_names(extension)):
        text = environment.get_template(template).render(values)
        files[_file_of(template, extension)] = re.sub(r"\n{4,}", "\n\n\n", text).strip("\n") + "\n"
    return files


def write(folder: Path, files: Mapping[str, str], *, force: bool = False) -> None:
    """Writes ``files`` into ``folder``. Raises :class:`FilesExistError` where one is there, unless
    ``force``.
    """
    there = tuple(sorted(name for name in files if (folder / name).exists()))
    if there and not force:
        raise FilesExistError(there)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _names(extension: Extension) -> list[str]:
    of_language = (_TEMPLATES / extension.language).iterdir()
    found = [f"{extension.language}/{one.name}" for one in of_language if one.name.endswith(".j2")]
    found += [f"{name}.j2" for name in _SHARED]
    return found


def _file_of(template: str, extension: Extension) -> str:
    name = template.rpartition("/")[2].removesuffix(".j2")
    if extension.language == "python":
        name = name.replace("extension.py", f"{extension.id}.py")
    return name


def _load(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")
