"""Objects of a cluster, for ``beamline get --kubeconfig``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beamline_contract.names import GROUP, VERSION
from beamline_contract.objects import KINDS, PLURAL

from .faults import CliError, ExitCode

_TIMEOUT_S = 10


def objects_of(kubeconfig: Path, kind: str | None) -> list[dict[str, Any]]:
    """All Extensions and RoutingPolicies of a cluster, or those of one kind. Raises :class:`CliError`."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        loaded = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]  # unannotated
        api = client.CustomObjectsApi(loaded)
    except (config.ConfigException, OSError) as error:
        raise CliError(f"{kubeconfig} is no usable kubeconfig: {error}", ExitCode.CONFIGURATION) from error
    found: list[dict[str, Any]] = []
    try:
        for one in KINDS:
            if kind in {None, one}:
                answer: Any = api.list_cluster_custom_object(
                    GROUP, VERSION, PLURAL[one], _request_timeout=_TIMEOUT_S
                )
                found.extend({**item, "kind": one} for item in answer["items"])
    except ApiException as error:
        helps = ": apply the CRDs first (`beamline crds | kubectl apply -f -`)" if error.status == 404 else ""
        raise CliError(
            f"the cluster answers {error.status} {error.reason}{helps}", ExitCode.UNAVAILABLE
        ) from error
    except HTTPError as error:
        raise CliError(f"the cluster does not answer: {error}", ExitCode.UNAVAILABLE) from error
    finally:
        api.api_client.close()
    return found
