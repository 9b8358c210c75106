"""Addresses `host:port` of the processes that share a training."""

from __future__ import annotations

import re
import socket

from zoo.errors import ZooError

LAST_PORT = 65_535


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address; an IPv6 host keeps its brackets.

    Raises:
        ZooError: for another text.
    """
    if not re.fullmatch(r"[^\s:/]+:[1-9]\d{0,4}|\[[0-9a-fA-F:]+\]:[1-9]\d{0,4}", address):
        raise ZooError(f"an address must be HOST:PORT, not {address!r}")
    host, _, port = address.rpartition(":")
    if int(port) > LAST_PORT:
        raise ZooError(f"{address} has no port from 1 to {LAST_PORT}")
    return host, int(port)


def listen(address: str) -> socket.socket:
    """A server at the port of an address, for all that reach this machine; raises OSError where it cannot be had."""
    host, port = host_and_port(address)
    return socket.create_server(("", port), family=socket.AF_INET6 if host.startswith("[") else socket.AF_INET)


def connect(address: str) -> socket.socket:
    """A connection to an address; raises OSError where nobody listens there."""
    host, port = host_and_port(address)
    return socket.create_connection((host.strip("[]"), port), timeout=1)
