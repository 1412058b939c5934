"""What a check is, the table of all checks, and how they are asked.

A check is one function below one ``@check(...)``: the decorator holds the words, the function looks. It yields a
``Finding`` per place, a ``NotChecked`` per place that it cannot see, and nothing where all is well. Each check has
evidence of ours, and a command that measures it again; tests/service/test_doctor.py holds a sick and a healthy project
for each, and docs/doctor.md is made of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

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
    title: str
    severity: Severity
    why: str
    evidence: str
    again: str  # the command that measures the evidence again
    mend: str
    redis: bool  # it can be made on Redis and Valkey only
    look: Look


@dataclass(frozen=True, slots=True)
class Diagnosis:
    found: dict[str, tuple[Finding, ...]]  # by code
    not_checked: dict[str, tuple[NotChecked, ...]]
    passed: tuple[str, ...]  # codes of checks that saw all places and found nothing


CHECKS: dict[str, Check] = {}


def check(
    code: str, title: str, severity: Severity, *, why: str, evidence: str, again: str, mend: str, redis: bool = False
) -> Callable[[Look], Look]:
    """Put the function into the table."""

    def put(look: Look) -> Look:
        CHECKS[code] = Check(code, title, severity, why, evidence, again, mend, redis, look)
        return look

    return put


def diagnose(seen: Observed, codes: Collection[str]) -> Diagnosis:
    found: dict[str, tuple[Finding, ...]] = {}
    not_checked: dict[str, tuple[NotChecked, ...]] = {}
    passed = []
    for code in sorted(codes):
        results = _results(CHECKS[code], seen)
        findings = tuple(each for each in results if isinstance(each, Finding))
        unseen = tuple(each for each in results if isinstance(each, NotChecked))
        if findings:
            found[code] = findings
        if unseen:
            not_checked[code] = unseen
        if not results:
            passed.append(code)
    return Diagnosis(found, not_checked, tuple(passed))


def _results(check: Check, seen: Observed) -> list[Result]:
    if check.redis and seen.broker.redis is None:
        return [NotChecked("broker", f"it is {seen.broker.kind}; this check is for Redis and Valkey")]
    try:
        return list(check.look(seen))
    except BrokerRefusedError as refused:
        return [NotChecked("broker", str(refused))]
