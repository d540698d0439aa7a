"""Whose rights the operators of this suite have: those of the chart's account, wherever it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.chartaccount import OTHER_RIGHTS

HERE = Path(__file__).parent
_AS_ADMINISTRATOR = re.compile(
    r"world\.operator\((?:self\.)?cluster\.kubeconfig"
    r"|\"KUBECONFIG\": str\(\w+\.kubeconfig\)"
    r"|FaultyApi\(Path\(cluster\.kubeconfig"
    r"|MortalApi\.connect\(str\(cluster\.kubeconfig"
)
"""An operator, or a part of one, that is handed the administrator's login."""


def test_no_operator_runs_as_administrator_where_the_charts_account_is_asked_for() -> None:
    found = {
        path.name
        for path in HERE.glob("test_*.py")
        if path != Path(__file__) and _AS_ADMINISTRATOR.search(path.read_text())
    }
    assert found <= set(OTHER_RIGHTS), f"{found} start operators as administrator"


def test_the_exceptions_exist_and_say_why() -> None:
    for name, why in OTHER_RIGHTS.items():
        assert (HERE / name).is_file()
        assert len(why) > 20
