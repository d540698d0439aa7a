"""What an identity that is bound to tenants may see and change. Denied is what is not plainly theirs.

A policy belongs to the tenants that it names; one that names none belongs to everybody. An extension belongs
to the tenants of the policies that use it. Seeing needs one tenant in common, or a policy for everybody.
Changing needs that nobody else is touched: every tenant concerned must be one's own, and there must be one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from beamline_contract.errors import ErrorCode
from beamline_contract.names import object_id
from beamline_contract.objects import ObjectKey
from beamline_contract.projection import PolicyRecord

from .catalogue import View
from .objects.port import Held
from .problems import AdminCode, ProblemError


class Scope:
    """``tenants`` None is everything."""

    def __init__(self, tenants: frozenset[str] | None) -> None:
        self._tenants = tenants

    def sees(self, concerned: list[frozenset[str]]) -> bool:
        """``concerned``: the tenants of each policy; an empty set is everybody."""
        if self._tenants is None:
            return True
        return any(not tenants or tenants & self._tenants for tenants in concerned)

    def may_write(self, concerned: list[frozenset[str]]) -> bool:
        """Whether every tenant concerned is one's own."""
        if self._tenants is None:
            return True
        return bool(concerned) and all(tenants and tenants <= self._tenants for tenants in concerned)

    def must_see(self, key: ObjectKey, spec: Mapping[str, Any], everything: Mapping[ObjectKey, Held]) -> None:
        """Raises :class:`ProblemError`, the same as for what does not exist."""
        if not self.sees(concerned_by(key, spec, everything)):
            raise ProblemError(AdminCode.NOT_FOUND, "there is no such object", field="id")

    def must_write(
        self, key: ObjectKey, spec: Mapping[str, Any], everything: Mapping[ObjectKey, Held]
    ) -> None:
        """Raises :class:`ProblemError`."""
        concerned = concerned_by(key, spec, everything)
        if self.may_write(concerned):
            return
        if not self.sees(concerned):
            raise ProblemError(AdminCode.NOT_FOUND, "there is no such object", field="id")
        raise ProblemError(
            ErrorCode.PERMISSION_DENIED,
            f"{key} concerns tenants that are not yours",
            hint="a change must concern your own tenants alone: name them in spec.match.tenants",
        )

    def must_be_own(self, tenant: str | None, *, field: str = "request.tenant_id") -> None:
        """Raises :class:`ProblemError` where ``tenant`` is somebody else's, or nobody's."""
        if self._tenants is not None and tenant not in self._tenants:
            raise ProblemError(ErrorCode.PERMISSION_DENIED, "this tenant is not yours", field=field)

    def must_see_policy(self, name: object, view: View, *, field: str) -> None:
        """Raises :class:`ProblemError` where ``name`` is a policy of others: the same as for none."""
        policy = view.policies.get(object_id(name)) if isinstance(name, str) else None
        if policy is not None and not self.sees([tenants_of(policy)]):
            raise ProblemError(AdminCode.NOT_FOUND, "no policy goes by that id", field=field)

    def seen_others(self, others: Iterable[Mapping[str, Any]], view: View) -> list[Mapping[str, Any]]:
        """Of the policies that a router says do not apply, those that may be seen."""
        known = ((one, view.policies.get(str(one.get("policy")))) for one in others)
        return [one for one, policy in known if policy is not None and self.sees([tenants_of(policy)])]

    def must_be_whole(self) -> None:
        """Raises :class:`ProblemError` unless the identity is bound to no tenants."""
        if self._tenants is not None:
            raise ProblemError(
                ErrorCode.PERMISSION_DENIED, "this concerns every tenant, and you are bound to some"
            )


def concerned_by(
    key: ObjectKey, spec: Mapping[str, Any], everything: Mapping[ObjectKey, Held]
) -> list[frozenset[str]]:
    """The tenants of each policy that an object is, or is used by."""
    if key.kind == "RoutingPolicy":
        return [_tenants(spec.get("match"))]
    return [
        _tenants(held.spec.get("match"))
        for other, held in everything.items()
        if other.kind == "RoutingPolicy" and object_id(key.name) in set(_names(held.spec))
    ]


def concerned_rows(identifier: str, view: View) -> list[frozenset[str]]:
    """The tenants of each policy in the registry that names an extension."""
    return [
        _tenants(policy.policy.get("match"))
        for policy in view.policies.values()
        if identifier in set(ids_of_row(policy.policy))
    ]


def tenants_of(policy: PolicyRecord) -> frozenset[str]:
    """The tenants that a policy names; none are all."""
    return _tenants(policy.policy.get("match"))


def ids_of_row(document: Any) -> Iterator[str]:
    """Every extension id that a policy's row names."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            if name in {"extension_id", "provider_id", "fallback_id"} and isinstance(value, str):
                yield value
            elif name == "fallback" and isinstance(value, list | tuple):
                yield from (entry for entry in value if isinstance(entry, str))
            else:
                yield from ids_of_row(value)
    elif isinstance(document, list | tuple):
        for item in document:
            yield from ids_of_row(item)


def _tenants(match: Any) -> frozenset[str]:
    found = match.get("tenants") if isinstance(match, Mapping) else None
    return frozenset(found or ())


def _names(spec: Any) -> Iterator[str]:
    """Every extension that a manifest refers to, as an id."""
    if isinstance(spec, Mapping):
        for name, value in spec.items():
            if name.lower().endswith("ref") and isinstance(value, Mapping) and "name" in value:
                yield object_id(str(value["name"]))
            elif name == "fallback" and isinstance(value, list):
                for entry in value:
                    if isinstance(entry, Mapping) and "name" in entry:
                        yield object_id(str(entry["name"]))
                yield from _names(value)
            else:
                yield from _names(value)
    elif isinstance(spec, list | tuple):
        for item in spec:
            yield from _names(item)
