"""PROTOCOL: what is compared, and how its jobs come to a deployment's workers and back.

An experiment (``rounds``) asks a workload for everything that depends on the tasks: the jobs, how workers are started,
submitted to and watched, and the result of each job. Moments are seconds since the epoch by the workload's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from poolbench.experiment import Deployment, MeasuredExecutor, MeasuredJob, MeasuredState, Measurement, Note, Scenario


@dataclass(frozen=True, slots=True)
class Workers:
    """A deployment's workers, ready to take jobs."""

    roots: tuple[int, ...]  # their main processes, if they run on this machine
    belongs: Callable[[MeasuredExecutor, frozenset[int]], bool]  # one of the processes that were seen of them?
    others: tuple[int, ...] | None = None  # main processes of the rest of the stack, if all of it is ours
    probes: Path | None = None  # the folder of their probes
    fresh: bool = False  # started for this measurement: nothing has run there yet
    ended: Callable[[], list[str]] = list  # how each ended that is not alive any more; empty: not known, or none has


@dataclass(frozen=True, slots=True)
class Running:
    """A job that has not ended, as it is shown meanwhile."""

    name: str
    state: MeasuredState
    share: float | None = None  # of its work that is done; None: not known


class Display(Protocol):
    """What happens, while it happens."""

    def begins(self, deployment: Deployment, turn: str, jobs: Sequence[str], left: float | None) -> None:
        """
        Args:
            turn: "round 2 of 3", "the warm-up"
            jobs: their names
            left: seconds until the end of the experiment, about; None: nothing is known yet
        """

    def progress(self, elapsed: float, done: int, jobs: int, running: Sequence[Running]) -> None:
        """``running`` are the jobs that are not final, if there are few."""

    def ended(self, job: MeasuredJob) -> None:
        """Called only if there are few jobs."""

    def measured(self, measurement: Measurement, note: str | None) -> None:
        """The note says why it ended early."""

    def says(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that is over."""

    batch: str
    submitted: float
    jobs: tuple[MeasuredJob, ...]
    note: str | None = None  # why it ended early


Arrivals = Callable[[], Mapping[str, float]]  # when each job's message was received by a worker, by job id


class Workload(Protocol):
    """The tasks under test, and the deployments that run them."""

    scenario: Scenario
    deployments: tuple[Deployment, ...]
    failures: tuple[type[Exception], ...]  # after which no more can be measured, and what there is is kept

    def share(self, deployment: Deployment, *, warm_up: bool = False) -> Sequence[str]:
        """The names of a measurement's jobs; fewer are enough to warm up."""

    def deployed(self, deployment: Deployment, batch: str) -> AbstractContextManager[Workers]:
        """The deployment's workers for a measurement, warmed up if they are fresh."""

    def arrivals(self) -> AbstractContextManager[Arrivals]:
        """Around a run: listens for the messages that workers receive."""

    def run(
        self, deployment: Deployment, batch: str, workers: Workers, display: Display, *, warm_up: bool = False
    ) -> Ran:
        """Run the jobs to their end; on any exception, Ctrl-C too, what is left is cancelled."""

    def disturbances(self, ran: Ran, workers: Workers) -> list[str]:
        """What disturbed a run: workers that ended, other work that was done meanwhile."""

    def discard(self, batch: str) -> None:
        """What a batch left behind is not needed any more."""

    def now(self) -> float:
        """By the workload's clock."""

    def versions(self) -> dict[str, str]:
        """Of what runs the tasks."""

    def notes(self) -> list[Note]:
        """What a reader must know, before the first measurement."""

    def afterthoughts(self) -> list[Note]:
        """What a reader must know, after the last measurement."""
