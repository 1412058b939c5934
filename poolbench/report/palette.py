"""Colours by what they mean, for light and dark paper.

Okabe and Ito's colours, which people with any kind of colour vision tell apart; on dark paper their lighter ones.
Colour is never the only cue: a pool has its mark and its label, a deployment its dashes, a phase its shape. Text has a
contrast of at least 4.5 to its paper, a mark of at least 3 (tests/unit/test_report_pictures.py).
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = ("paper", "ink", "muted", "rule", "faint", "wait", "prefork", "threads", "gevent", "serial", "on")
_LIGHT = "#ffffff #1c2127 #5b646d #dde1e5 #f5f6f4 #87919b #0072b2 #d55e00 #008f68 #6d7680 #ffffff"
_DARK = "#14171a #e9ebed #a7afb7 #333a41 #1c2024 #7d8792 #56b4e9 #e69f00 #2fc79b #a2abb4 #14171a"
LIGHT: Mapping[str, str] = dict(zip(_NAMES, _LIGHT.split(), strict=True))
DARK: Mapping[str, str] = dict(zip(_NAMES, _DARK.split(), strict=True))

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MARKS = {  # paths of a pool's own mark, 12 pixels wide: a square, a disc, a triangle; a diamond for the baseline
    "prefork": "M2 2h8v8H2z",
    "threads": "M2 6a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "gevent": "M6 1l5 9H1z",
    "serial": "M6 1l5 5-5 5-5-5z",
}
