"""Which IP addresses a provider may connect to.

A host name says nothing about where a connection goes: whoever runs its DNS can answer with an address inside
our network, and with another one for each question. So the name is resolved once per connection, every
address is judged here, and the connection is made to exactly an address that was judged.

Public addresses are fine. Private and loopback ones need the operator's word (an allow-list entry that *is*
the address, or ``BEAMLINE_ALLOWED_NETWORKS``). Link-local ones, where clouds keep their metadata services,
are never fine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local: AWS, Azure, Google Cloud metadata
        "100.100.100.200/32",  # Alibaba Cloud metadata
        "168.63.129.16/32",  # Azure's platform service, a public address that only machines inside reach
        "192.0.0.192/32",  # Oracle Cloud metadata
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "fe80::/10",
        "fd00:ec2::254/128",  # AWS metadata over IPv6
        "ff00::/8",
    )
)
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64: the last 32 bits are an IPv4 address (RFC 6052)."""
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
"""The old IPv4-compatible form, with ``::`` and ``::1`` as exceptions."""
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)


class NetworksError(ValueError):
    """``BEAMLINE_ALLOWED_NETWORKS`` can't be read."""


@dataclass(frozen=True, slots=True)
class AddressRule:
    """``networks`` and ``addresses``: what is allowed beside public addresses."""

    networks: Sequence[Network] = ()
    addresses: frozenset[str] = frozenset()

    def fault(self, text: str) -> str | None:
        """Why a connection to this address must not be made, or None."""
        try:
            address = unwrapped(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            return "not an IP address"
        if any(address in network for network in _NEVER if network.version == address.version):
            return "a link-local, metadata, multicast or reserved address"
        if str(address) in self.addresses:
            return None
        if any(address in network for network in self.networks if network.version == address.version):
            return None
        return None if address.is_global else "a private address"


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside of an IPv6 one (mapped, compatible, 6to4, Teredo, NAT64), else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and address.teredo is not None:
        inner = address.teredo[1]
    if inner is None and (address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1)):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address if inner is None else inner


def parse_networks(text: str) -> tuple[Network, ...]:
    """``private`` (loopback, RFC 1918, shared and unique local space) or networks with commas between them.

    Raises :class:`NetworksError`.
    """
    found: list[Network] = []
    for entry in (part.strip() for part in text.split(",")):
        if entry == "private":
            found += _PRIVATE
        elif entry:
            try:
                found.append(ipaddress.ip_network(entry))
            except ValueError:
                raise NetworksError(
                    f"{entry[:64]!r} is neither a network such as 10.0.0.0/8 nor 'private'"
                ) from None
    return tuple(found)


def first_fault(rule: AddressRule, addresses: Iterable[str]) -> str | None:
    """The first fault among ``addresses``: one bad answer spoils all, or a rebinding name tries again."""
    for address in addresses:
        fault = rule.fault(address)
        if fault is not None:
            return fault
    return None
