"""Which function answers which path.

The tables in the docstrings of `origin/files.py` and `origin/faults/__init__.py` are the one list of
paths: `GET /index` reads them, and a test compares them with what is registered here.
"""

import re
from collections.abc import Awaitable, Callable

from origin.exchange import Exchange

Answer = Callable[[Exchange], Awaitable[None]]
ROW = re.compile(r"^(/\S+)\s{2,}(\S.*)$", re.MULTILINE)


class Routes:
    """Paths and their functions, chosen by the first one or two segments of a path."""

    def __init__(self) -> None:
        """Start without paths."""
        self._answers: dict[str, Answer] = {}

    def add(self, path: str) -> Callable[[Answer], Answer]:
        """Register the decorated function for a path and all that is below it."""

        def register(answer: Answer) -> Answer:
            self._answers[path] = answer
            return answer

        return register

    @property
    def paths(self) -> set[str]:
        """Return the registered paths, without their parameters."""
        return set(self._answers)

    def find(self, path: str) -> tuple[Answer, str] | None:
        """Return the function for a path and the rest of the path that it may read."""
        parts = path.split("/", 3)
        for length in (3, 2):
            answer = self._answers.get("/".join(parts[:length]))
            if answer is not None:
                return answer, "/".join(parts[length:])
        return None


def table(docstring: str | None) -> dict[str, str]:
    """Read the rows of a path table: a path, two spaces or more, a description."""
    return dict(ROW.findall(docstring or ""))


ROUTES = Routes()
