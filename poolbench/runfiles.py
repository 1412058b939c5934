"""Measured runs as files, and runs of one kind put together."""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import IO, Any

import click
from pydantic import ValidationError

from poolbench.experiment import SCHEMA, Cores, Deployment, Experiment, Measurement, Sampling, from_json


class PoolbenchError(click.ClickException):
    """One message for people, after the name of the program that they called."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(message)
        context = click.get_current_context(silent=True)
        self._program = (context.find_root().info_name if context else None) or "poolbench"

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self._program}: {self.message}", file=file, err=file is None)


class RunError(PoolbenchError):
    """The file of an experiment cannot be read, or is something else."""


class ReportError(PoolbenchError):
    """What was expected of the runs, or of the place for the report."""


_CHANGES = ("load",)  # of a machine, from run to run


def differences(one: Experiment, other: Experiment) -> list[str]:
    """Why two runs cannot be pooled; empty: they can."""
    names = [f"{of.name}, {of.jobs} jobs, seed {of.seed}" for of in (one.scenario, other.scenario)]
    theirs = {each.name: _same(each) for each in other.deployments}
    others = (each.name for each in one.deployments if theirs.get(each.name, _same(each)) != _same(each))
    return [
        *([f"scenario: {' and '.join(names)}"] if one.scenario != other.scenario else []),
        *_unequal("version of ", one.versions, other.versions),
        *_unequal("machine's ", one.machine, other.machine),
        *(f"deployment {name} is another one" for name in others),
    ]


def agreeing(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """The runs in groups that can be pooled, in the order in which they came."""
    groups: list[list[Experiment]] = []
    for experiment in experiments:
        alike = (group for group in groups if not any(differences(each, experiment) for each in group))
        if group := next(alike, None):
            group.append(experiment)
        else:
            groups.append([experiment])
    return groups


def pooled(experiments: Sequence[Experiment]) -> Experiment:
    """One experiment with the rounds of all; a run that is there twice is taken once.

    Raises:
        ValueError: there is none, or they do not agree.
    """
    if not experiments:
        raise ValueError("expected at least one run, got none")
    first, distinct = experiments[0], dict[frozenset[str], Experiment]()
    for run in experiments:
        if reasons := differences(first, run):
            raise ValueError(f"expected runs of one kind, got runs that differ: {'; '.join(reasons)}")
        distinct.setdefault(frozenset(each.batch for each in run.measurements), run)
    runs = list(distinct.values())
    if len(runs) == 1:
        return first
    measurements: list[Measurement] = []
    for run in runs:
        last = max((each.round for each in measurements), default=0)
        measurements += (replace(each, round=each.round + last) if each.round else each for each in run.measurements)
    together = f"{len(runs)} runs were pooled"
    deployments = {each.name: each for run in reversed(runs) for each in reversed(run.deployments)}
    return replace(
        first,
        deployments=tuple(reversed(deployments.values())),
        measurements=tuple(measurements),
        started=min(run.started for run in runs),
        finished=max(run.finished for run in runs),
        cores=_cores([run.cores for run in runs if run.cores]),
        sampling=_sampling([run.sampling for run in runs if run.sampling]),
        notes=(*dict.fromkeys(note for run in runs for note in run.notes), together),
        caveats=(*dict.fromkeys(note for run in runs for note in run.caveats), together),
    )


def _same(deployment: Deployment) -> tuple[object, ...]:
    return deployment.pool, deployment.concurrency, deployment.serial, deployment.setup


def _unequal(what: str, one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    return [
        f"{what}{key}: {one.get(key)} and {other.get(key)}"
        for key in dict.fromkeys([*one, *other])
        if key not in _CHANGES and one.get(key) != other.get(key)
    ]


def _cores(seen: Sequence[Cores]) -> Cores | None:
    if not seen:
        return None
    probes = tuple(probe for each in seen for probe in each.probes)
    return Cores(seen[0].nominal, median(probes or [each.effective for each in seen]), probes)


def _sampling(seen: Sequence[Sampling]) -> Sampling | None:
    if not seen:
        return None
    used = sum(each.cpu / each.share for each in seen if each.share)
    cpu = sum(each.cpu for each in seen)
    return Sampling(seen[0].every, cpu, cpu / used if used else 0.0)


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
        if b'"contestants"' in text:
            raise RunError(
                f"expected {path} to be of schema {SCHEMA}, got a run of an earlier one: measure again"
            ) from error
        errors = error.errors(include_url=False)
        first = next((each for each in errors if each["loc"] == ("schema",)), errors[0])
        expected = f"expected {path} to be a run that was written with --json ({SCHEMA})"
        if first["loc"] in ((), ("schema",)) or (first["type"] == "missing" and len(first["loc"]) == 1):
            got = f"JSON of schema {_short(first['input'])}" if first["type"] == "literal_error" else "something else"
            raise RunError(f"{expected}, got {got}") from error
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(f"{expected}; {where}: {first['msg']}, got {_short(first['input'])}") from error
    if _MAYBE.search(text):  # looking at each number takes longer than all the rest
        checked = partial(_checked, path)
        json.loads(text, parse_constant=checked, parse_float=checked, parse_int=checked)
    names = [deployment.name for deployment in experiment.deployments]
    unknown = sorted({each.deployment for each in experiment.measurements} - set(names))
    if unknown or not names or len(set(names)) < len(names):
        got = f"measurements of {', '.join(map(_short, unknown))}" if unknown else f"deployments {_short(names)}"
        raise RunError(
            f"expected each measurement in {path} to be of one of its deployments, each named once; got {got}"
        )
    return experiment


def _checked(path: Path, number: str) -> float:
    value = float(number)
    if not abs(value) < _MOST:
        raise RunError(f"expected numbers below {_MOST:g} in {path}, got {number}")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- a file that is written whole or not at all: first under another name beside it


def check_whole(path: Path) -> None:
    """Whether a file can be written there, without leaving one.

    Raises:
        OSError: it cannot.
    """
    with _draft(path) as draft:
        if draft != path:
            draft.touch()


def write_whole(path: Path, content: bytes) -> None:
    """
    Raises:
        OSError: nothing was written, and what was there is still there.
    """
    with _draft(path) as draft:
        draft.write_bytes(content)
        if draft != path:
            draft.replace(path)


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """The path itself if it is a pipe or a device, which cannot be replaced."""
    if path.exists() and not path.is_file():
        yield path
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)
