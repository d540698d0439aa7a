"""What a person may do from a page: first what it would change, then the change itself.

A proposal is made by the rules that the change is made by, so what a person confirms is what happens: the
writer's checks and rights for objects, the routers' own answers for breakers. Between the two the object may
change; its generation travels with the proposal, and the change is refused then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from beamline_contract.acts import STATE_AFTER, ActVerb
from beamline_contract.errors import ErrorCode
from beamline_contract.names import GROUP

from ..acts import act_on_routers
from ..catalogue import Catalogue, View
from ..preconditions import Request
from ..problems import ProblemError
from ..routers import Routers, RoutersError
from ..runtime_api import must_write_row
from ..scope import Scope, ids_of_row, tenants_of
from ..writing import Done, Writer
from .differences import Line, lines_of

Act = Literal["enable", "disable", "isolate", "reset", "promote", "abort"]
WAIT_S: Final = 15.0
"""How long a page waits for every router."""
_ON_ROUTERS: Final[Mapping[str, ActVerb]] = {"isolate": "isolate", "reset": "reset"}
_ANNOTATIONS: Final = frozenset({"promote", "abort"})


@dataclass(frozen=True, slots=True)
class Words:
    """How an act is spoken of. ``{id}`` is the extension."""

    ask: str
    button: str
    effect: str
    done: str
    danger: bool = False


WORDS: Final[Mapping[str, Words]] = {
    "disable": Words(
        "Disable {id}?",
        "Disable",
        "It leaves every router, and its workload goes to zero. A step that names it is skipped or fails, by "
        "its failure mode.",
        "{id} is disabled",
        danger=True,
    ),
    "enable": Words(
        "Enable {id}?",
        "Enable",
        "Its workload starts, and every router calls it again.",
        "{id} is enabled",
    ),
    "isolate": Words(
        "Isolate {id}?",
        "Isolate",
        "Running routers refuse every call to it until somebody resets it, or they end. The object stays as "
        "it is.",
        "{id} is isolated",
        danger=True,
    ),
    "reset": Words(
        "Reset the breakers of {id}?",
        "Reset",
        "Running routers close its breakers, isolated ones too, and call it at once.",
        "The breakers of {id} are closed",
    ),
    "promote": Words(
        "Promote the canary {id}?",
        "Promote",
        "It takes all requests to its base at once; steps and gates that are left no longer count.",
        "{id} is promoted",
    ),
    "abort": Words(
        "Abort the canary {id}?",
        "Abort",
        "Its base takes all requests again. The canary takes none until its spec changes.",
        "The canary {id} is aborted",
        danger=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change that somebody may confirm. ``faults`` and ``owner`` are in the way of it."""

    lines: tuple[Line, ...]
    generation: int | None = None
    owner: str | None = None
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """Policies that name the extension, as far as the caller sees them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it. ``state``: ``programmed``, ``waiting`` or ``refused``; ``routers`` is ``n/m``."""

    state: str
    routers: str | None
    message: str
    lines: tuple[Line, ...]


class Acting:
    """Proposes and acts. Methods raise :class:`ProblemError`."""

    def __init__(self, catalogue: Catalogue, writer: Writer, routers: Routers | None) -> None:
        self._catalogue = catalogue
        self._writer = writer
        self._routers = routers

    async def propose(self, act: Act, identifier: str, how: Request) -> Proposal:
        """What ``act`` would change."""
        view = await self._catalogue.view()
        users = _users(identifier, view, how.identity.tenants)
        if act in _ON_ROUTERS:
            must_write_row(identifier, view, how.identity.tenants)
            lines = _breaker_lines(await self._ask("status", {}), identifier, STATE_AFTER[act])
            return Proposal(lines, users=users)
        held = await self._writer.held("Extension", identifier, how)
        if act in _ANNOTATIONS:
            done = await self._writer.propose("Extension", identifier, dict(held.spec), how)
            return _proposal(done, (_canary_line(held.document, act),), users)
        spec = {**held.spec, "enabled": act == "enable"}
        done = await self._writer.propose("Extension", identifier, spec, how)
        return _proposal(done, tuple(lines_of(done.changes)), users)

    async def act(self, act: Act, identifier: str, generation: int | None, how: Request) -> Outcome:
        """Does it, and waits for the routers."""
        if (verb := _ON_ROUTERS.get(act)) is not None:
            must_write_row(identifier, await self._catalogue.view(), how.identity.tenants)
            return _told(await act_on_routers(self._routers, verb, identifier, how))
        if act in _ANNOTATIONS:
            done = await self._writer.annotate(identifier, f"{GROUP}/{act}", how.request_id, how, acted=act)
            said = done.progress.message if done.progress is not None else None
            return Outcome(done.progress.state if done.progress else "waiting", None, said or "", ())
        done = await self._writer.switch(identifier, act == "enable", generation, how)
        return outcome_of(done)

    async def _ask(self, verb: str, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        if self._routers is None:
            raise ProblemError(
                ErrorCode.UNAVAILABLE, "this process was not told where NATS is", hint="set NATS_URL"
            )
        try:
            return await self._routers.ask(verb, request)
        except RoutersError as error:
            raise ProblemError(ErrorCode.UNAVAILABLE, str(error)) from error


def outcome_of(done: Done) -> Outcome:
    """What became of a change of an object."""
    lines = tuple(lines_of(done.changes))
    if not lines:
        return Outcome("programmed", None, "It was so already; nothing was written.", ())
    progress = done.progress
    if progress is None:
        return Outcome("waiting", None, "It is written.", lines)
    return Outcome(progress.state, progress.routers, progress.message or "", lines)


def _proposal(done: Done, lines: tuple[Line, ...], users: tuple[str, ...]) -> Proposal:
    return Proposal(
        lines,
        done.generation,
        done.owner,
        tuple(map(str, done.faults)),
        tuple(map(str, done.warnings)),
        users,
    )


def _users(identifier: str, view: View, tenants: frozenset[str] | None) -> tuple[str, ...]:
    scope = Scope(tenants)
    return tuple(
        policy.id
        for policy in view.policies.values()
        if identifier in set(ids_of_row(policy.policy)) and scope.sees([tenants_of(policy)])
    )


def _breaker_lines(answers: list[dict[str, Any]], identifier: str, then: str) -> tuple[Line, ...]:
    lines = []
    for answer in answers:
        breakers = (answer.get("result") or {}).get("breakers") or {}
        own = [word for key, word in breakers.items() if str(key).partition("@")[0] == identifier]
        now = next((word for word in own if word != "closed"), "closed")
        lines.append(Line(f"breaker in {answer['instance']}", str(now), then))
    return tuple(lines)


def _canary_line(document: Mapping[str, Any], act: str) -> Line:
    canary = (document.get("status") or {}).get("canary")
    if not canary:
        raise ProblemError(
            ErrorCode.INVALID_ARGUMENT, "this extension has no canary", hint="state one in spec.canary"
        )
    now = f"{canary.get('weight', 0)} % ({canary.get('state', 'unknown')})"
    return Line("share of its base's requests", now, "100 %" if act == "promote" else "0 %")


def _told(answers: list[dict[str, Any]]) -> Outcome:
    good = [answer for answer in answers if answer.get("error") is None]
    bad = [answer for answer in answers if answer.get("error") is not None]
    said = "; ".join(f"{one['instance']}: {(one['error'] or {}).get('message', '')}" for one in bad)
    if not answers:
        raise ProblemError(ErrorCode.UNAVAILABLE, "no router answered")
    return Outcome("refused" if bad else "programmed", f"{len(good)}/{len(answers)}", said[:500], ())
