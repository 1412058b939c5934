"""Measured runs as files: the JSON that ``producer compare`` wrote, gzip or not."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from producer.comparison.experiment import SCHEMA, Experiment, from_json
from producer.errors import RunError

_GZIP = b"\x1f\x8b"
_MOST = 1e15  # no second, byte or count of ours is more; sums of larger ones could overflow
_MAYBE = re.compile(rb"[:,\[\s]-?(?:NaN|Infinity|[\d.]+[eE]\+?\d\d|\d{15})")


def read(path: Path) -> Experiment:
    """
    Raises:
        RunError: this is not the JSON of an experiment.
    """
    try:
        found = path.read_bytes()
        text = gzip.decompress(found) if found.startswith(_GZIP) else found
        experiment = from_json(text)
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"expected a run at {path}, got: {getattr(error, 'strerror', None) or error}") from error
    except ValidationError as error:
        errors = error.errors(include_url=False)
        first = next((each for each in errors if each["loc"] == ("schema",)), errors[0])
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        raise RunError(
            f"expected {path} to be a run that `producer compare --json` wrote ({SCHEMA}); {where}: {first['msg']},"
            f" got {_short(first['input'])}"
        ) from error
    if _MAYBE.search(text):  # looking at each number takes longer than all the rest
        checked = partial(_checked, path)
        json.loads(text, parse_constant=checked, parse_float=checked, parse_int=checked)
    names = [contestant.name for contestant in experiment.contestants]
    unknown = sorted({turn.contestant for turn in experiment.turns} - set(names))
    if unknown or not names or len(set(names)) < len(names):
        got = f"turns of {', '.join(map(_short, unknown))}" if unknown else f"contestants {_short(names)}"
        raise RunError(f"expected each turn in {path} to be of one of its contestants, each named once; got {got}")
    return experiment


def _checked(path: Path, number: str) -> float:
    value = float(number)
    if not abs(value) < _MOST:
        raise RunError(f"expected numbers below {_MOST:g} in {path}, got {number}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
