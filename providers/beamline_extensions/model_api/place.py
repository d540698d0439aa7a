"""Where a provider may go: what the operator set in the environment of its process, read once.

``{API}_BASE_URL`` replaces the API's usual address. ``BEAMLINE_ALLOWED_BASE_URLS`` lists what a configuration
may ask for beside that. ``BEAMLINE_ALLOWED_NETWORKS`` opens private networks (:mod:`.addresses`); an entry of
the list that is an IP address, or ``localhost``, says so for itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from beamline_sdk import NotReadyError

from .addresses import AddressRule, NetworksError, parse_networks
from .base_url import BaseUrl, BaseUrlError, allowed, parse, parse_list

URLS_VARIABLE = "BEAMLINE_ALLOWED_BASE_URLS"
NETWORKS_VARIABLE = "BEAMLINE_ALLOWED_NETWORKS"


class Places:
    """The default place (None: the configuration must name one) and those that are allowed."""

    def __init__(self, environment: Mapping[str, str], variable: str, usual: str | None) -> None:
        """Raises :class:`NotReadyError` that names the variable."""
        try:
            self.default = parse(environment[variable]) if environment.get(variable) else None
        except BaseUrlError as error:
            raise NotReadyError("InvalidBaseUrl", f"{variable}: {error}") from None
        if self.default is None and usual is not None:
            self.default = parse(usual)
        try:
            listed = parse_list(environment.get(URLS_VARIABLE, ""))
        except BaseUrlError as error:
            raise NotReadyError("InvalidBaseUrl", f"{URLS_VARIABLE}: {error}") from None
        try:
            networks = parse_networks(environment.get(NETWORKS_VARIABLE, ""))
        except NetworksError as error:
            raise NotReadyError("InvalidNetworks", f"{NETWORKS_VARIABLE}: {error}") from None
        self.entries = listed if self.default is None else (self.default, *listed)
        addresses = {entry.address for entry in self.entries if entry.address is not None}
        if any(entry.host == "localhost" for entry in self.entries):
            addresses |= {"127.0.0.1", "::1"}
        self.rule = AddressRule(networks, frozenset(addresses))

    def of(self, text: str | None) -> BaseUrl:
        """The place that a configuration names, or the default. Raises :class:`BaseUrlError`."""
        if text is None:
            if self.default is None:
                raise BaseUrlError("config.base_url is missing: it says where the API is")
            return self.default
        wanted = parse(text)
        if not allowed(wanted, self.entries):
            raise BaseUrlError(
                f"config.base_url {wanted} is not on the list of {URLS_VARIABLE}, which the operator keeps"
            )
        if wanted.address is not None and (fault := self.rule.fault(wanted.address)) is not None:
            raise BaseUrlError(f"config.base_url is {fault}: see {NETWORKS_VARIABLE}")
        return wanted
