"""The table of all checks, and how they are asked.

The words of a check are in ``checks.toml``: why it matters, the evidence, the mend. How it looks is in ``looks``.
tests/service/test_doctor.py has a sick and a healthy project for each; docs/doctor.md is made of the table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.resources import files

from poolbench.doctor.looks import LOOKS, Finding, Look, NotChecked, Result
from poolbench.doctor.observed import BrokerRefusedError, Observation

SEVERITIES = {  # the worst first
    "error": "does not do now what it is set to do",
    "warning": "loses, repeats or stops work when something fails",
    "note": "costs speed, or the sight of what happens",
}


@dataclass(frozen=True, slots=True)
class Check:
    code: str
    look: Look
    title: str
    severity: str
    why: str
    evidence: str
    again: str  # the command that measures the evidence again
    mend: str
    redis: bool = False  # it can be made on Redis and Valkey only


@dataclass(frozen=True, slots=True)
class Diagnosis:
    found: dict[str, list[Finding]]  # by code
    not_checked: dict[str, list[NotChecked]]
    passed: list[str]  # codes of checks that saw all places and found nothing


_WORDS = tomllib.loads(files(__package__).joinpath("checks.toml").read_text())
CHECKS = {code: Check(code, LOOKS[code], **words) for code, words in _WORDS.items()}


def diagnose(seen: Observation, asked: Collection[Check]) -> Diagnosis:
    diagnosis = Diagnosis({}, {}, [])
    for each in asked:
        results = list(_results(each, seen))
        if findings := [result for result in results if isinstance(result, Finding)]:
            diagnosis.found[each.code] = findings
        if unseen := [result for result in results if isinstance(result, NotChecked)]:
            diagnosis.not_checked[each.code] = unseen
        if not results:
            diagnosis.passed.append(each.code)
    return diagnosis


def _results(check: Check, seen: Observation) -> Iterator[Result]:
    try:
        if check.redis and seen.broker.redis is None:
            yield NotChecked("broker", f"it is {seen.broker.kind}; this check is for Redis and Valkey")
        else:
            yield from check.look(seen)
    except BrokerRefusedError as refused:
        yield NotChecked("broker", str(refused))
    except Exception as error:  # an unusual project must not take the other checks away
        yield NotChecked("doctor", f"the check itself failed: {type(error).__name__}: {error}")
