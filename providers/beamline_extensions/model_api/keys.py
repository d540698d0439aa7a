"""The keys of one API: where they come from, which one is used, and which one rests.

Keys come from the environment (``NAME``, several with commas between them) or from a mounted file or
directory (``NAME_FILE``, else ``NAME`` in the directory ``BEAMLINE_KEYS_DIR``: one key a line; of a directory
every file that is not hidden), never from a configuration, which anybody who may read custom resources can
read. A file is looked at again at most once a second, so a rotated Secret is used without a restart; a file
that exists wins over the variable.

A key that the API refuses (401) rests for five minutes, one that is over its limit (429) for as long as the
API says. The next key is tried at once: neither answer has cost anything. Which keys rest is known by a short
digest, so that nothing here can print one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

REFUSED_S: Final = 300.0
"""How long a key rests after the API did not accept it; a rotated file ends that at once."""
LIMITED_S: Final = 1.0
"""How long a key rests after a 429 that does not say."""
MAX_REST_S: Final = 300.0
REREAD_S: Final = 1.0
MAX_FILE_BYTES: Final = 65_536
KEYS_DIR: Final = "/etc/beamline/keys"
"""Where a Secret is mounted by convention; a custom resource may not set a variable called
``*_API_KEY_FILE``, because its name speaks of a secret."""
_TELLING: Final = 8
"""Characters from which a piece of a key is recognisable; shorter ones are placeholders such as `EMPTY`."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")


class KeySourceError(ValueError):
    """No key can be had; the sentence names the variable or file, never a key."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Its text is not in its representation."""

    secret: str
    digest: str

    def __repr__(self) -> str:
        return f"Key({self.digest})"

    @classmethod
    def of(cls, secret: str) -> Key:
        """A key with the digest that names it."""
        return cls(secret, blake2b(secret.encode(), digest_size=4).hexdigest())


@dataclass(slots=True)
class Rest:
    """Until when a key rests, monotonic seconds, and why."""

    until: float
    why: Literal["refused", "limited"]


@dataclass(frozen=True, slots=True)
class Resting:
    """No key may be used now: ``seconds`` until the first one may, ``refused`` where all were refused."""

    seconds: float
    refused: bool


class KeyRing:
    """The keys of one API, in order. ``clock`` gives monotonic seconds."""

    def __init__(self, name: str, environment: Mapping[str, str], clock: Callable[[], float]) -> None:
        self.name = name
        self._variable = environment.get(name, "")
        file = environment.get(f"{name}_FILE", "")
        self._stated = bool(file)
        self._path = Path(file or Path(environment.get("BEAMLINE_KEYS_DIR") or KEYS_DIR, name))
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fault: str | None = None
        self._rests: dict[str, Rest] = {}
        self._stamp: object = None
        self._looked_at = float("-inf")

    def fault(self) -> str | None:
        """Why there is no usable key, or None."""
        self._refresh()
        if not self._keys:
            return self._fault
        now = self._clock()
        rests = [self._rests.get(key.digest) for key in self._keys]
        if all(rest is not None and rest.why == "refused" and rest.until > now for rest in rests):
            return f"the API did not accept any key of {self._source()}"
        return None

    def pick(self, tried: frozenset[str] = frozenset()) -> Key | Resting:
        """The first key that does not rest and is not among ``tried`` (digests).

        Raises :class:`KeySourceError` where there is none at all.
        """
        self._refresh()
        if not self._keys:
            raise KeySourceError(self._fault or f"{self.name} is not set")
        if len(self._keys) == 1 and not tried:
            return self._keys[0]  # nothing to change to: what the API says then goes to the caller
        now = self._clock()
        soonest, refused = MAX_REST_S, True
        for key in self._keys:
            rest = self._rests.get(key.digest)
            if rest is None or rest.until <= now:
                if key.digest not in tried:
                    return key
                soonest, refused = 0.0, False
                continue
            soonest = min(soonest, rest.until - now)
            refused = refused and rest.why == "refused"
        return Resting(soonest, refused)

    def rest(self, key: Key, why: Literal["refused", "limited"], seconds: float | None = None) -> None:
        """The API did not take this key; ``seconds`` as it said, at most 300."""
        default = REFUSED_S if why == "refused" else LIMITED_S
        pause = min(default if seconds is None else seconds, MAX_REST_S)
        self._rests[key.digest] = Rest(self._clock() + pause, why)

    def worked(self, key: Key) -> None:
        """The API has taken this key."""
        self._rests.pop(key.digest, None)

    def holds(self, text: str) -> bool:
        """Whether ``text`` has a key, or a recognisable piece of one, in it."""
        long = [key.secret for key in self._keys if len(key.secret) >= _TELLING]
        return any(secret[:12] in text or secret[-_TELLING:] in text for secret in long)

    def _source(self) -> str:
        return f"{self.name}_FILE ({self._path})" if self._stated else self.name

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked_at < REREAD_S:
            return
        self._looked_at = now
        try:
            files = _files(self._path)
            stamp = tuple((str(file), info.st_mtime_ns, info.st_ino, info.st_size) for file, info in files)
            if stamp == self._stamp:
                return
            lines = [line for file, _ in files for line in _read(file).split()]
        except FileNotFoundError:
            if not self._keys:
                self._take_variable()
            return
        except (OSError, UnicodeDecodeError) as error:
            if not self._keys:  # a file that is being replaced may be gone for a moment: what was read stays
                self._fault = f"{self._source()} can't be read: {type(error).__name__}"
            return
        self._stamp = stamp
        self._take(lines, f"{self._source()} holds no key")

    def _take_variable(self) -> None:
        if self._stated:
            self._fault = f"{self._source()} does not exist"
        else:
            self._take(re.split(r"[,\s]+", self._variable), f"{self.name} is not set")

    def _take(self, texts: list[str], otherwise: str) -> None:
        given = [text for text in texts if text]
        self._keys = tuple(Key.of(text) for text in dict.fromkeys(given) if _KEY.fullmatch(text))
        self._fault = None if self._keys else otherwise
        if given and not self._keys:
            self._fault = f"{self._source()} holds characters that no key has"
        known = {key.digest for key in self._keys}
        self._rests = {digest: rest for digest, rest in self._rests.items() if digest in known}


def _files(path: Path) -> list[tuple[Path, os.stat_result]]:
    info = path.stat()
    if not path.is_dir():
        return [(path, info)]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    return [(entry, entry.stat()) for entry in entries if entry.is_file()]


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES).decode("ascii")
