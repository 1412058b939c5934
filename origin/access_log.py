"""One JSON line for each finished request.

t           epoch seconds when the request had arrived
method, path, status, range, user_agent
            as received; path is the whole target; status 0: no status line was sent
bytes       body bytes that the kernel took (without chunk framing): what the client can have got at most
seconds     from arrival until the last byte was taken, or until the client had left
aborted     true: the client left, or the origin was stopped, before the answer was complete;
            a body that a fault cuts on purpose is complete
client      address and port
"""

import json
import sys
from pathlib import Path
from typing import TextIO

from origin.exchange import Exchange


class AccessLog:
    """Writes the lines to a file, if there is one, and a short form to stderr if wanted."""

    def __init__(self, path: Path | None, verbose: bool) -> None:
        """Open the file for appending; each line is written when it is complete."""
        self._file: TextIO | None = None
        if path is not None:
            self._file = path.open("a", buffering=1, encoding="utf-8")
        self._verbose = verbose

    def note(self, exchange: Exchange, seconds: float, aborted: bool) -> None:
        """Write down one request."""
        request = exchange.request
        if self._verbose:
            end = " aborted" if aborted else ""
            line = f"{request.method} {request.target} {exchange.status} {exchange.sent} bytes"
            sys.stderr.write(f"{line} {seconds:.3f} s{end}\n")
        if self._file is None:
            return
        record = {
            "t": round(exchange.arrived_at, 6),
            "method": request.method,
            "path": request.target,
            "status": exchange.status,
            "bytes": exchange.sent,
            "seconds": round(seconds, 6),
            "range": request.headers.get("range"),
            "aborted": aborted,
            "client": exchange.connection.client,
            "user_agent": request.headers.get("user-agent"),
        }
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
