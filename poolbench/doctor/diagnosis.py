"""What a check is, the table of all checks, and how they are asked.

The words of a check are in ``checks.toml``: why it matters, the evidence, the mend. Its function looks at what was
observed. It yields a ``Finding`` per place, a ``NotChecked`` per place that it cannot see, else nothing.
tests/service/test_doctor.py has a sick and a healthy project for each; docs/doctor.md is made of the table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

from poolbench.doctor.observed import BrokerRefusedError, Observed


class Severity(StrEnum):
    ERROR = "error"  # does not do now what it is set to do
    WARNING = "warning"  # loses, repeats or stops work when something fails
    NOTE = "note"  # costs speed, or the sight of what happens


@dataclass(frozen=True, slots=True)
class Finding:
    where: str  # a worker, a task, a queue, or the broker
    found: str  # with the figures that were seen


@dataclass(frozen=True, slots=True)
class NotChecked:
    where: str
    why: str


Result = Finding | NotChecked
Look = Callable[[Observed], Iterator[Result]]


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    look: Look
    title: str
    severity: Severity
    why: str
    evidence: str
    again: str  # the command that measures the evidence again
    mend: str
    redis: bool = False  # it can be made on Redis and Valkey only


@dataclass(frozen=True, slots=True)
class Diagnosis:
    found: dict[str, tuple[Finding, ...]]  # by code
    not_checked: dict[str, tuple[NotChecked, ...]]
    passed: tuple[str, ...]  # codes of checks that saw all places and found nothing


_WORDS = tomllib.loads(files(__package__).joinpath("checks.toml").read_text())
_LOOKS: dict[str, Look] = {}


def check(code: str) -> Callable[[Look], Look]:
    """The function is the one of this code."""

    def put(look: Look) -> Look:
        _LOOKS[code] = look
        return look

    return put


def checks() -> dict[str, Check]:
    """All of them, by code, in the order of the table."""
    from poolbench.doctor import broker_checks, message_checks, pool_checks  # noqa: F401, PLC0415 - they use this module

    return {
        code: Check(code, _LOOKS[code], **{**words, "severity": Severity(words["severity"])})
        for code, words in _WORDS.items()
    }


def diagnose(seen: Observed, asked: Collection[Check]) -> Diagnosis:
    found: dict[str, tuple[Finding, ...]] = {}
    not_checked: dict[str, tuple[NotChecked, ...]] = {}
    passed = []
    for each in asked:
        results = _results(each, seen)
        if findings := tuple(result for result in results if isinstance(result, Finding)):
            found[each.code] = findings
        if unseen := tuple(result for result in results if isinstance(result, NotChecked)):
            not_checked[each.code] = unseen
        if not results:
            passed.append(each.code)
    return Diagnosis(found, not_checked, tuple(passed))


def _results(check: Check, seen: Observed) -> list[Result]:
    if check.redis and seen.broker.redis is None:
        return [NotChecked("broker", f"it is {seen.broker.kind}; this check is for Redis and Valkey")]
    try:
        return list(check.look(seen))
    except BrokerRefusedError as refused:
        return [NotChecked("broker", str(refused))]
    except Exception as error:  # an unusual project must not take the other checks away
        return [NotChecked("doctor", f"the check itself failed: {type(error).__name__}: {error}")]
