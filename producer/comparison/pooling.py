"""Runs of the same experiment put together: their rounds are appended, so that intervals get narrower.

Runs agree if scenario, versions and machine are equal (not its load), and each contestant that they share is the same.
Contestants are still compared within a round, so never across runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from producer.comparison.experiment import Contestant, Cores, Experiment, Sampling, Turn
from producer.comparison.notes import POOLED

_CHANGES = ("load",)  # of a machine, from run to run


def differences(one: Experiment, other: Experiment) -> list[str]:
    """Why two runs cannot be pooled; empty: they can."""
    found = []
    if one.scenario != other.scenario:
        found.append(f"scenario: {_scenario(one)} and {_scenario(other)}")
    found += _unequal("version of ", one.versions, other.versions)
    found += _unequal("machine's ", one.machine, other.machine)
    theirs = {each.name: _same(each) for each in other.contestants}
    found += [
        f"contestant {each.name} is another one"
        for each in one.contestants
        if theirs.get(each.name, _same(each)) != _same(each)
    ]
    return found


def agreeing(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """The runs in groups that can be pooled, in the order in which they came."""
    groups: list[list[Experiment]] = []
    for experiment in experiments:
        for group in groups:
            if not any(differences(each, experiment) for each in group):
                group.append(experiment)
                break
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
    first, turns, seen = experiments[0], list[Turn](), set[frozenset[str]]()
    distinct = []
    for run in experiments:
        if reasons := differences(first, run):
            raise ValueError(f"expected runs of one kind, got runs that differ: {'; '.join(reasons)}")
        batches = frozenset(turn.batch for turn in run.turns)
        if batches in seen:
            continue
        seen.add(batches)
        last = max((turn.round for turn in turns), default=0)
        turns += [replace(turn, round=turn.round + last) if turn.round else turn for turn in run.turns]
        distinct.append(run)
    if len(distinct) == 1:
        return first
    contestants = {each.name: each for run in reversed(distinct) for each in reversed(run.contestants)}
    return replace(
        first,
        contestants=tuple(reversed(contestants.values())),
        turns=tuple(turns),
        started=min(run.started for run in distinct),
        finished=max(run.finished for run in distinct),
        cores=_cores([run.cores for run in distinct if run.cores]),
        sampling=_sampling([run.sampling for run in distinct if run.sampling]),
        notes=(*dict.fromkeys(note for run in distinct for note in run.notes), f"{len(distinct)} {POOLED}"),
    )


def _scenario(experiment: Experiment) -> str:
    scenario = experiment.scenario
    return f"{scenario.name}, {scenario.jobs} jobs, seed {scenario.seed}"


def _same(contestant: Contestant) -> tuple[object, ...]:
    return contestant.pool, contestant.slots, contestant.serial, contestant.setup


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
