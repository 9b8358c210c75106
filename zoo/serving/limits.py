"""What one request may ask for, and what the server does at once."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """A request beyond a limit gets the HTTP status in brackets, before any work is done.

    The graphs of the signatures have limits of their own, which these cannot raise.

    Attributes:
        body: bytes of a request's body (413).
        pixels: of all image files of a request, by their headers (413).
        batch: instances of a request (413).
        count: images that the signature `sample` draws (400).
        length: characters that the signature `generate` writes (400).
        seconds: for the body to arrive (408), and from then to the answer (504).
        queue: requests that wait for one signature (503, with Retry-After).
        joined: instances of several requests that are computed at once.
        wait: seconds that a request waits for others to be computed with.
        connections: open at once; others wait.
        header_seconds: for a request's header to arrive; the connection is closed then.
        shutdown_seconds: for the requests in progress after SIGTERM; the process is killed then.
    """

    body: int = 8 * 2**20
    pixels: int = 2**25
    batch: int = 1024
    count: int = 1024
    length: int = 10_000
    seconds: float = 30.0
    queue: int = 256
    joined: int = 64
    wait: float = 0.001
    connections: int = 256
    header_seconds: int = 10
    shutdown_seconds: int = 30
