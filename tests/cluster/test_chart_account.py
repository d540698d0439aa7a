"""Whose rights the operators of this suite have: those of the chart's account, wherever it is asked for."""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.chartaccount import OTHER_RIGHTS

HERE = Path(__file__).parent
_ADMIN = re.compile(r"operator\((?:str\()?\w*\.?cluster\.kubeconfig|\"KUBECONFIG\": str\(\w+\.kubeconfig")
"""An operator, in process or as one, that is handed the administrator's login."""


def test_no_operator_runs_as_administrator_where_the_charts_account_is_asked_for() -> None:
    found = {
        path.name
        for path in HERE.glob("*.py")
        if _ADMIN.search(path.read_text())
        or "kubeconfig=str(cluster.kubeconfig), namespaces" in path.read_text()
    }
    assert found <= set(OTHER_RIGHTS), f"{found} start operators as administrator"


def test_the_exceptions_exist_and_say_why() -> None:
    for name, why in OTHER_RIGHTS.items():
        assert (HERE / name).is_file()
        assert len(why) > 20
