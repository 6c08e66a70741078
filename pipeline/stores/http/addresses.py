"""Which addresses may be connected to: public ones, and those private ones that the configuration allows.

What is judged is the address that is connected to, after its name was resolved, so that no name, spelling of a
number or second answer of a name server leads elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_NAT64 = ip_network("64:ff9b::/96")
_INTERNAL = frozenset({ip_address("168.63.129.16")})
"""Public by number, but answered by the cloud's own host: Azure's."""

Address = IPv4Address | IPv6Address


def public(address: Address) -> bool:
    """Whether an address belongs to the public internet, whatever it wraps."""
    inner = _inside(address)
    if inner is not None:
        return public(inner)
    odd = address.is_multicast or address.is_reserved or address.is_unspecified
    return address.is_global and not odd and address not in _INTERNAL


def _inside(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo is not None else None)


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be connected to. `everything` lets all through; `networks` are allowed beside the public ones."""

    everything: bool = False
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, allowed: bool | tuple[str, ...]) -> Guard:  # noqa: FBT001 - the configuration's own value
        """The guard that a source's `allow_private` asks for. Raises ValueError for what is no network."""
        if isinstance(allowed, bool):
            return cls(everything=allowed)
        return cls(networks=tuple(ip_network(text, strict=False) for text in allowed))

    def allows(self, text: str) -> bool:
        """Whether an address, as a resolver gives it, may be connected to."""
        if self.everything:
            return True
        address = ip_address(text.partition("%")[0])
        inner = _inside(address)
        if public(address):
            return True
        return any(one in network for network in self.networks for one in (address, inner) if one is not None)
