"""What a new snapshot means for the memory of the router: which breakers, budgets and counters it needs.

Found out while the snapshot is compiled, in pieces, so that taking over a table of thousands of policies
costs no pause.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from beamline_sdk.breaker import BreakerSettings

from .retry import BudgetSettings
from .route import CompiledExtension, CompiledPolicy
from .slices import Sliced, batches


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What :meth:`.state.Runtime.adopt` has to know, found out while the snapshot is compiled: the settings
    of breakers and of policies' own retry budgets by their keys, and the keys of all loads.
    """

    breakers: Mapping[str, BreakerSettings]
    budgets: Mapping[str, BudgetSettings]
    loads: Set[str]

    @classmethod
    def gathering(
        cls, extensions: Mapping[str, CompiledExtension], policies: Iterable[CompiledPolicy]
    ) -> Sliced[Upkeep]:
        """Made in pieces."""
        breakers = {key: extension.breaker for key, extension in extensions.items()}
        budgets: dict[str, BudgetSettings] = {}
        loads = set(breakers)
        yield
        for batch in batches(policies):
            for call in (call for policy in batch for call in policy.route.calls()):
                if call.breaker_key != call.extension_id:
                    breakers[call.breaker_key] = call.breaker
                loads.add(call.load_key)
                if call.gate is not None:
                    loads.add(call.gate)
                if call.budget_key is not None and call.budget is not None:
                    budgets[call.budget_key] = call.budget
            yield
        return cls(breakers, budgets, loads)
