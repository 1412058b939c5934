"""What spoils a turn: then it is shown, says why, does not count, and is run once more.

==================  ===========================================================================================
a turn is excluded  when
==================  ===========================================================================================
not its own         a job ran elsewhere than on the contestant's worker, or was tried again
not whole           a worker of the contestant ended, where it was started for the turn
not alone           jobs of another batch ran meanwhile
swapping            more than ``swapped`` pages a second went in or out, or more than ``faults`` were waited for
neighbours          the hypervisor kept more than ``stolen`` of the machine's CPU for others
strangers           processes that are not the stack's used more than ``strangers`` of the machine's CPU, and less
                    than ``spare`` of it was idle: so they took what the contestant may have wanted
fewer cores         the probe before the round found less than ``cores`` of what the best probe found
==================  ===========================================================================================

Strangers are known only where the whole stack is ours; on a running stack who is a stranger cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from producer.comparison.experiment import Books, Turn
from producer.comparison.notes import AGAIN
from producer.comparison.procfs import Machine


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of the machine's CPU time, if nothing else is said."""

    strangers: float = 0.25
    spare: float = 0.10
    stolen: float = 0.10
    swapped: float = 100.0  # pages per second
    faults: float = 500.0  # major ones per second
    cores: float = 0.6  # of the best probe

    @property
    def text(self) -> str:
        return (
            f"a turn is excluded when strangers use more than {self.strangers:.0%} of the CPU and less than"
            f" {self.spare:.0%} is idle, when more than {self.stolen:.0%} is stolen, when more than {self.swapped:g}"
            f" pages/s are swapped or {self.faults:g} read back, when less than {self.cores:.0%} of the best seen cores"
            " are ours, when jobs ran elsewhere or twice, or when another batch ran"
        )


# Whatever the machine does, its turns count.
NONE = Limits(strangers=2.0, spare=0.0, stolen=2.0, swapped=float("inf"), faults=float("inf"), cores=0.0)


def of_books(books: Books) -> list[str]:
    found = []
    if books.here < books.done:
        found.append(f"{books.done - books.here} of its jobs ran on another worker")
    if books.once < books.done:
        found.append(f"{books.done - books.once} of its jobs were tried more than once")
    if books.right < books.done:
        found.append(f"{books.done - books.right} of its files have another sha256")
    return found


def of_machine(before: Machine, after: Machine, seconds: float, ours: float | None, limits: Limits) -> list[str]:
    """
    Args:
        ours: seconds of CPU that the stack and we used; None: not known, so strangers are not either.
    """
    busy, idle = after.busy - before.busy, after.idle - before.idle
    stolen = after.stolen - before.stolen
    whole = max(busy + idle + stolen, 1e-9)
    found = []
    if seconds > 0 and (swapped := (after.swapped - before.swapped) / seconds) > limits.swapped:
        found.append(f"the machine swapped {swapped:.0f} pages/s")
    if seconds > 0 and (faults := (after.major_faults - before.major_faults) / seconds) > limits.faults:
        found.append(f"the machine waited for {faults:.0f} pages/s from its disk")
    if stolen / whole > limits.stolen:
        found.append(f"{stolen / whole:.0%} of the CPU was stolen by the hypervisor")
    if ours is not None and (strange := (busy - ours) / whole) > limits.strangers and idle / whole < limits.spare:
        found.append(f"other programs used {strange:.0%} of the CPU, and {idle / whole:.0%} was idle")
    return found


def too_few(turns: Sequence[Turn], contestants: Sequence[str], rounds: int) -> list[str]:
    """What a reader must know about contestants whose turns do not all count."""
    counted = {
        name: len({turn.round for turn in turns if turn.contestant == name and turn.counts}) for name in contestants
    }
    found = [
        f"{name}: {count} of {rounds} rounds count" + ("" if count else "; nothing is said of it")
        for name, count in counted.items()
        if count < rounds
    ]
    if found and any(turn.books.balance and turn.excluded for turn in turns):
        found.append(f"{AGAIN}, or with --noise 1 to count every turn that ran well")
    return found
