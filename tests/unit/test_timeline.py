"""The timeline shows who ran when: golden pictures of known reports, and what must hold for any."""

from __future__ import annotations

import pytest

from ledger.jobs import FailureKind
from poolbench.experiment import Experiment
from poolbench.experiment import MeasuredState as State
from poolbench.experiment import PoolKind as Pool
from poolbench.lanes import MOST_LANES, PLAIN, render
from tests.measured import attempt, experiment, gevent, job, prefork, serial, shown, threads, who

GOLDEN = """\
prefork: prefork@host: 2 processes
  pid 101    ┣━ Guide.pdf ━━━━━━━━━━━━━━━━━━━━━━━━━┫
  pid 102    ┣━ Demo_Video.mp4 ━━━━━━━━━┫
threads: threads@host, pid 200: 2 threads
  thread 201 ┣━ Guide.pdf ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┫
  thread 202 ┣━ Demo_Video.mp4 ━━━━━━━━━━━━━━┫
gevent: gevent@host, pid 300, thread 300: 2 greenlets
  greenlet 3 ┣━ Guide.pdf ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┫
  greenlet 4 ┣━ Demo_Video.mp4 ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┫
serial: prefork@host: 2 processes
  pid 101    ┣━ Guide.pdf ━━━━━━━━━━━━━━━━━━━━━━━━━┫
  pid 102                                           ┣━ Demo_Video.mp4 ━━━━━━━━━┫
             0 s ──────────────────────────────────────────────────────── 12.2 s
┣━┫ runs  ━╳ failed  ┄┄┄ waits in the queue
"""


def plain(of: Experiment, width: int) -> list[str]:
    """As a terminal without UTF-8 shows it."""
    return [line.translate(PLAIN) for line in render(of, width=width)]


def test_the_picture_of_the_tutorial() -> None:
    lines = render(experiment(prefork(), threads(), gevent(), serial()), width=80)

    assert lines == GOLDEN.splitlines()


def test_without_utf_8_the_same_picture_is_ascii() -> None:
    lines = plain(experiment(prefork(), threads(), gevent(), serial()), 80)

    to_ascii = str.maketrans("┄┣━┫╳█─", ".[=]x#-")
    assert lines == [line.translate(to_ascii) for line in GOLDEN.splitlines()]
    assert "\n".join(lines).isascii()


def test_a_wait_in_the_queue_is_drawn_differently_from_the_run() -> None:
    """Given waits of one and two seconds on an axis of four, I expect a quarter and a half of it drawn as waits."""
    slot = who(Pool.PREFORK, 9)
    jobs = [
        job(Pool.PREFORK, "a", 2, attempt(slot, 1.0, 2.0)),
        job(Pool.PREFORK, "b", 2, attempt(who(Pool.PREFORK, 8), 2.0, 4.0)),
    ]

    lines = plain(experiment(shown(Pool.PREFORK, jobs)), 28)

    assert lines[2:4] == ["  pid 9 .....[===]", "  pid 8 ..........[========]"]


def test_failed_lost_and_tiny_attempts_are_visible() -> None:
    slot = who(Pool.THREADS, 1, 2)
    jobs = [
        job(
            Pool.THREADS,
            "retried",
            1,
            attempt(slot, 0.0, 2.0, FailureKind.RESET),
            attempt(None, 3.0, 5.0, FailureKind.LOST),
            attempt(slot, 6.0, 6.01),
            attempt(slot, 8.0, 10.0),
        )
    ]

    lines = plain(experiment(shown(Pool.THREADS, jobs)), 40)

    (thread,) = (line for line in lines if line.startswith("  thread 2 [====x"))
    assert "#" in thread
    (lost,) = (line for line in lines if line.startswith("  lost 1"))
    assert lost.endswith("x")
    assert "=x failed" in " ".join(lines)


def test_a_job_that_never_ran_has_no_lane() -> None:
    never = job(Pool.GEVENT, "never", 5, state=State.CANCELLED)

    assert render(experiment(shown(Pool.GEVENT, [never]))) == []
    lines = render(experiment(prefork(), shown(Pool.GEVENT, [never])))
    assert lines[3] == "gevent: nothing ran"


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("count", [1, MOST_LANES, 500])
def test_no_line_is_wider_than_asked_for(width: int, count: int) -> None:
    """Given many jobs with the longest ids a kernel gives, I expect lanes that fit, and the rest counted.

    500 threads that lived for one job each are packed on as many slots as ran at once.
    """
    jobs = [
        job(
            Pool.THREADS,
            f"a-rather-long-file-name-{n}.bin",
            5,
            attempt(who(Pool.THREADS, 4194304, 4190000 + n), n / 7, n / 7 + 3 + n % 5),
        )
        for n in range(count)
    ]

    lines = render(experiment(shown(Pool.THREADS, jobs)), width=width)

    assert max(map(len, lines)) <= width
    assert len(lines) <= MOST_LANES + 8
    assert ("  and 19 more" in lines) == (count == 500)
