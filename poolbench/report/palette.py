"""Colours by what they mean, for light and dark paper, and the style of drawings.

Okabe and Ito's colours, which people with any kind of colour vision tell apart; on dark paper their lighter ones.
Colour is never the only cue: a pool has its mark and its label, a deployment its dashes, a phase its shape. Text has a
contrast of at least 4.5 to its paper, a mark of at least 3 (tests/unit/test_report_pictures.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from poolbench.experiment import Deployment

LIGHT: Mapping[str, str] = {
    "paper": "#ffffff",
    "ink": "#1c2127",
    "muted": "#5b646d",
    "rule": "#dde1e5",
    "faint": "#f5f6f4",
    "wait": "#87919b",
    "prefork": "#0072b2",
    "threads": "#d55e00",
    "gevent": "#008f68",
    "serial": "#6d7680",
    "on": "#ffffff",
}
DARK: Mapping[str, str] = {
    "paper": "#14171a",
    "ink": "#e9ebed",
    "muted": "#a7afb7",
    "rule": "#333a41",
    "faint": "#1c2024",
    "wait": "#7d8792",
    "prefork": "#56b4e9",
    "threads": "#e69f00",
    "gevent": "#2fc79b",
    "serial": "#a2abb4",
    "on": "#14171a",
}
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 2", "12 4")  # of the deployments of one pool, in their order

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
DRAWING = (
    f"text{{font:12px {FONT};fill:var(--ink)}}"
    ".muted{fill:var(--muted)}.strong{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".paper{fill:var(--paper)}.rule{stroke:var(--rule);fill:none}.axis{stroke:var(--muted);fill:none}"
    ".ink{stroke:var(--ink);fill:none}.inked{fill:var(--ink)}.wait{fill:var(--wait)}.waits{stroke:var(--wait);fill:none}"
    ".hollow{fill:var(--paper);stroke:var(--muted)}.limit{stroke:var(--ink);stroke-dasharray:3 3;fill:none}"
    ".on{stroke:var(--on);fill:none}.early{fill-opacity:.5}"
    + "".join(
        f".{name}{{fill:var(--{name})}}.{name}-line{{stroke:var(--{name});fill:none;stroke-width:2}}"
        for name in ("prefork", "threads", "gevent", "serial")
    )
)


def look(deployment: Deployment) -> str:
    """The class of its colour and its mark."""
    return "serial" if deployment.serial else deployment.pool.value


def variables(colours: Mapping[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


def resolved(style: str, colours: Mapping[str, str] = LIGHT) -> str:
    """The style for a reader that knows no CSS variables."""
    return re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], style)
