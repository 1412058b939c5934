"""The advice must follow from what was measured, and say so when nothing follows: experiments with known answers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench.advice import FULL, ONE_CORE, SEVERAL_CORES, Advice, Confidence, recommend
from poolbench.advice import AnswerLimits as Limits
from poolbench.choice import ALIKE, REGRET
from poolbench.experiment import PLAIN, Experiment, Measurement, Setup
from poolbench.experiment import PoolKind as Pool
from poolbench.figures import between
from poolbench.statistics import MARGIN, TIE, Verdict
from producer.fleet import start
from tests.experiments import MIB, Made, made, remeasured

PROCESS = 30 * MIB  # what a child of prefork adds


def text(sentences: Iterable[str]) -> str:
    return "\n".join(sentences)


def advice(*deployments: Made, limits: Limits | None = None, **how: object) -> Advice:
    return recommend(made(*deployments, **how), limits)  # type: ignore[arg-type]


def curve(pool: Pool, *slots: int, run: float = 0.5, **how: object) -> list[Made]:
    return [Made(pool, n, run, **how) for n in slots]  # type: ignore[arg-type]


def counting(cores: float = 2.0) -> Experiment:
    """A step in pure Python: threads share one core for it, processes have as many as there are."""
    return made(
        *curve(Pool.THREADS, 1, 2, 4, run=0.005, work=0.05),
        *curve(Pool.PREFORK, 1, 2, 4, run=0.005, work=0.05, per_slot=PROCESS),
        cores=cores,
    )


# -- an answer


def test_a_clear_winner_is_the_answer_with_its_command() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2), Made(Pool.PREFORK, 8, 0.3))

    assert found.answer == "threads:8"
    assert found.command == "celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 -E"
    assert found.headline == (
        "threads:8 finished the work 1.97 times sooner than gevent:8 and 2.9 times sooner than prefork:8."
    )
    assert {each.b: each.verdict for each in found.beside} == dict.fromkeys(("gevent:8", "prefork:8"), Verdict.FASTER)
    assert found.tied == ()
    assert found.compared == ("threads:8", "gevent:8", "prefork:8")


def test_a_tie_goes_to_less_memory_and_is_called_a_tie() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1, idle=80 * MIB), Made(Pool.GEVENT, 8, 0.1, idle=50 * MIB))

    assert found.answer == "gevent:8"
    assert found.tied == ("threads:8",)
    assert found.criterion == "less memory"
    assert "A tie of 2" in text(found.reasoning)
    assert re.fullmatch(
        r"gevent:8 and threads:8 were equally fast, [\d.]+–[\d.]+; gevent:8 has less memory\.", found.headline
    )


def test_a_tie_that_nothing_decides_is_not_called_faster() -> None:
    """Given two that differ in nothing but noise, I expect words that agree with a runner-up that may be faster."""
    found = advice(*(Made(pool, 8, 0.1, noise=0.005) for pool in (Pool.THREADS, Pool.GEVENT)))

    assert len(found.tied) == 1
    assert found.criterion is None
    assert found.headline == (
        f"{found.answer} and {found.tied[0]} were equally fast, {between(found.beside[0].ratio)}."
    )
    assert "Either will do." in text(found.reasoning)


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_that_nothing_but_the_rounds_decides_is_ahead_in_their_ratio(seed: int) -> None:
    """Given equals, I expect no page that recommends one and says beside it that the other does more."""
    found = advice(*(Made(pool, 8, 0.1) for pool in (Pool.THREADS, Pool.GEVENT)), seed=seed)

    assert found.criterion is None
    assert found.beside[0].ratio
    assert found.beside[0].ratio.median >= 1


def test_a_tie_in_memory_too_goes_to_the_shorter_tail() -> None:
    """Given one of two equals that runs some jobs late, I expect the other."""
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.1))

    def slow_tail(of: Measurement) -> Measurement:
        return replace(of, spans=replace(of.spans, ran=(*of.spans.ran[:-2], 3.0, 3.0)))

    found = recommend(remeasured(experiment, slow_tail, "threads:8"))

    assert found.answer == "gevent:8"
    assert found.criterion == "a shorter p99 of latency"


def test_jobs_that_compute_get_processes_as_many_as_effective_cores() -> None:
    found = recommend(counting(cores=2.0))

    assert found.answer == "prefork:2"
    assert "the machine gave" not in text(found.because)


def test_jobs_that_wait_get_the_saturation_point_of_the_curve() -> None:
    """Given a server that answers 16 at a time, I expect 16 slots and not 64."""
    found = advice(*curve(Pool.THREADS, 4, 8, 16, 32, 64, saturation=16), *curve(Pool.PREFORK, 4, 8), jobs=128)

    assert found.answer == "threads:16"
    assert "the saturation point is 16" in text(found.reasoning)
    assert found.confidence is Confidence.HIGH


def test_an_answer_says_what_it_gives_up() -> None:
    found = advice(Made(Pool.GEVENT, 8, 0.1, idle=80 * MIB), Made(Pool.PREFORK, 8, 0.2, idle=30 * MIB))

    given_up = text(found.gives_up)
    assert found.answer == "gevent:8"
    assert "Memory at the peak: 80.8 MiB; 30.8 MiB with prefork:8, beside which it was 2.1 × (" in given_up
    assert "Isolation: what kills the process takes all jobs that run in it, up to 8" in given_up


def test_slots_that_are_not_known_are_not_in_the_command() -> None:
    """Given the workers of a running stack, whose slots nobody told, I expect a command without -c."""
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2))
    deployments = tuple(
        replace(each, concurrency=None, command=start(each.pool, None, PLAIN), running=True)
        for each in experiment.deployments
    )

    found = recommend(replace(experiment, deployments=deployments))

    assert found.command == "celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -E"


# -- no answer, or a doubtful one


def test_noise_larger_than_the_difference_is_no_answer_and_more_rounds_are_proposed() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1, noise=0.3), Made(Pool.GEVENT, 8, 0.104, noise=0.3), seed=2)

    assert (found.answer, found.command, found.confidence) == (None, None, Confidence.NONE)
    assert "as fast as" in text(found.because)
    assert any("--repeat" in command and "--repeat 5" not in command for command in found.next)


def test_in_much_noise_there_is_rarely_an_answer_and_never_a_sure_one() -> None:
    """Given 60 experiments whose noise is eight times the difference, I expect at most one answer in five."""
    pair = Made(Pool.THREADS, 8, 0.1, noise=0.3), Made(Pool.GEVENT, 8, 0.104, noise=0.3)
    found = [advice(*pair, seed=seed, jobs=16) for seed in range(60)]

    assert sum(each.answer is not None for each in found) <= 12
    assert all(each.confidence is not Confidence.HIGH for each in found)


@pytest.mark.parametrize("rounds", [1, 2])
def test_of_few_rounds_a_large_difference_is_an_answer_of_low_confidence(rounds: int) -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 1.8), rounds=rounds)

    assert (found.answer, found.confidence) == ("threads:8", Confidence.LOW)
    assert re.fullmatch(r"threads:8 finished the work 1[89] times sooner than gevent:8\.", found.headline)
    assert "only a difference of several times is certain" in found.because[0]
    assert found.next[0] == "producer compare made --jobs 40 --seed 1 --repeat 5"


def test_of_few_rounds_a_small_difference_alone_is_no_answer() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.11), rounds=2)

    assert (found.answer, found.confidence) == (None, Confidence.NONE)
    assert re.fullmatch(
        r"Whether threads:8 is faster than gevent:8 \(.*\) cannot be told from 2 rounds\.", found.headline
    )


def test_of_few_rounds_a_small_difference_beside_a_large_one_leaves_an_answer_of_low_confidence() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.11), Made(Pool.PREFORK, 8, 1.8), rounds=2)

    assert (found.answer, found.confidence) == ("threads:8", Confidence.LOW)
    assert "whether gevent:8 is slower cannot be told" in found.because
    assert re.match(r"threads:8 finished the work 1[89] times sooner than prefork:8; whether it is", found.headline)
    assert found.headline.endswith("cannot be told from 2 rounds.")
    assert found.next[0] == "producer compare made --jobs 40 --seed 1 --repeat 5"


def test_nothing_measured_is_no_answer() -> None:
    empty = replace(made(Made(Pool.THREADS, 8, 0.1)), deployments=(), measurements=())

    assert recommend(empty).answer is None


def test_excluded_turns_do_not_count() -> None:
    """Given a winner that was slowed down by something else in one round, I expect it to win still."""
    experiment = made(
        Made(Pool.THREADS, 8, 0.1, excluded={3: "another process took 0.9 cores"}), Made(Pool.GEVENT, 8, 0.2)
    )

    found = recommend(remeasured(experiment, lambda of: replace(of, wall=99.0) if of.excluded else of))

    assert found.answer == "threads:8"
    assert "4 rounds count" in text(found.because)


def test_a_deployment_with_too_few_good_turns_is_not_compared_and_is_named() -> None:
    excluded = dict.fromkeys((1, 2, 3), "load")
    found = advice(Made(Pool.THREADS, 8, 0.1, excluded=excluded), Made(Pool.GEVENT, 8, 0.2), Made(Pool.PREFORK, 8, 0.3))

    assert found.answer == "gevent:8"
    assert "fewer than 3 of their rounds count: threads:8 (2)" in text(found.reasoning)


def test_little_noise_makes_a_small_difference_certain_and_not_important() -> None:
    """Given a deployment that is certainly 2 % slower and takes less memory, I expect a tie and that one."""
    experiment = made(Made(Pool.THREADS, 8, 0.1, idle=80 * MIB), Made(Pool.GEVENT, 8, 0.1))
    walls = {"threads:8": 1.0, "gevent:8": 1.02}

    found = recommend(remeasured(experiment, lambda of: replace(of, wall=walls[of.deployment] + of.round / 10_000)))

    assert found.answer == "gevent:8"
    assert found.tied == ("threads:8",)
    assert [each.verdict for each in found.beside] == [Verdict.EQUAL]


def test_what_may_be_much_slower_is_no_tie_even_if_it_takes_less_memory() -> None:
    """Given two whose order the noise hides by up to 30 %, I expect the faster one and not the leaner."""
    experiment = made(Made(Pool.THREADS, 8, 0.1, idle=80 * MIB), Made(Pool.GEVENT, 8, 0.1))
    factors = (1.0, 0.98, 1.1, 1.1, 1.2, 1.1)
    even = remeasured(experiment, lambda of: replace(of, wall=1.0))

    found = recommend(remeasured(even, lambda of: replace(of, wall=factors[of.round]), "gevent:8"))

    assert found.answer == "threads:8"
    assert found.tied == ()
    assert found.headline.startswith("Whether threads:8 is faster than gevent:8 (")


def test_memory_that_is_not_known_of_all_does_not_decide_a_tie() -> None:
    experiment = made(Made(Pool.THREADS, 8, 0.1, idle=80 * MIB), Made(Pool.GEVENT, 8, 0.1))
    blind = remeasured(experiment, lambda of: replace(of, usage=None), "threads:8")

    assert recommend(blind).criterion != "less memory"


# -- deployments with options


def test_a_curve_has_deployments_of_one_setup_only() -> None:
    """Given threads that saturate at 16, and at 4 if they prefetch, I expect two curves, each with its own point."""
    ahead = Setup(prefetch=4)
    found = advice(
        *curve(Pool.THREADS, 4, 8, 16, 32, saturation=16),
        *curve(Pool.THREADS, 4, 8, 16, saturation=4, setup=ahead),
        jobs=128,
    )

    plain, prefetching = (line for line in found.reasoning if "the saturation point is" in line)
    assert plain.startswith("threads: threads:4 ")
    assert "+prefetch" not in plain
    assert "the saturation point is 16" in plain
    assert prefetching.startswith("threads+prefetch=4: threads:4+prefetch=4 ")
    assert "the saturation point is 4: " in prefetching
    assert found.answer == "threads:16"
    assert "no pool but threads was compared" in found.because


def test_an_answer_with_options_has_them_in_its_command() -> None:
    setup = Setup(workers=2, prefetch=4, events=False)
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.THREADS, 8, 0.1, setup=setup), jobs=128)

    assert found.answer == "threads:8+workers=2+prefetch=4+events=off"
    assert found.command == (
        "for n in $(seq 2); do celery -A worker.app worker -P threads -Q downloads.threads -n threads-$n@%h -c 8"
        " --prefetch-multiplier 4 worker_send_task_events=off & done; wait"
    )


def test_options_that_bring_nothing_are_not_recommended() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1, setup=Setup(prefetch=4)), Made(Pool.THREADS, 8, 0.1))

    assert found.answer == "threads:8"
    assert found.tied == ("threads:8+prefetch=4",)
    assert found.criterion == "fewer options"
    assert "then a lower concurrency, then fewer options" in text(found.reasoning)


def test_what_to_measure_next_keeps_the_options_and_what_is_possible() -> None:
    """Given a curve that still rises at 16 slots for each of two workers, I expect 32 to be proposed, and no 64."""
    found = advice(*curve(Pool.PREFORK, 4, 8, 16, setup=Setup(workers=2)), *curve(Pool.GEVENT, 4), jobs=128)

    assert found.answer == "prefork:16+workers=2"
    assert (
        "the saturation point of prefork+workers=2 was not reached: a concurrency above 16 was not measured"
        in found.because
    )
    (command,) = (line for line in found.next if "--pools" in line)
    assert "--pools prefork:16+workers=2,prefork:32+workers=2" in command
    assert "prefork:64" not in command


def test_two_workers_are_not_said_to_be_one_process() -> None:
    """Given threads that compute in two processes, I expect half of them at risk, not all."""
    found = advice(
        *curve(Pool.THREADS, 2, 4, run=0.005, work=0.05, setup=Setup(workers=2)),
        *curve(Pool.THREADS, 2, 4, run=0.005, work=0.05),
    )

    assert found.answer == "threads:2+workers=2"
    assert "what kills a process takes all jobs that run in it, up to 2;" in text(found.gives_up)


# -- what speaks against confidence

PAIR = Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2)
RISING = *curve(Pool.THREADS, 4, 8, 16), *curve(Pool.GEVENT, 4)
FIRST, LAST = dict.fromkeys((1, 2, 3), "load"), dict.fromkeys((4, 5, 6), "load")


@pytest.mark.parametrize(
    ("experiment", "because", "next_"),
    [
        (made(*RISING, jobs=128), "a concurrency above 16 was not measured", "threads:32,threads:64"),
        (made(*RISING, jobs=16), "the saturation point needs more jobs", "--jobs 64"),
        (made(*curve(Pool.THREADS, 4, 8, 16, saturation=8), jobs=64), "no pool but threads was compared", ""),
        (
            made(*(replace(each, excluded={1: "load", 2: "load"}) for each in PAIR), rounds=7, jobs=8),
            "4 of 14 measurements were excluded",
            "",
        ),
        (made(*PAIR, cores=1.1), "the machine gave 1.1 of its 2 cores: for jobs that compute, another one may", ""),
        (replace(made(*PAIR), cores=None), "the machine was not probed for its cores", ""),
        (made(*(replace(each, noise=0.9) for each in PAIR), rounds=3), " × as fast as", "--repeat 6"),
        (
            made(replace(PAIR[0], excluded=LAST), replace(PAIR[1], excluded=FIRST), rounds=6),
            "there is no round in which both count",
            "",
        ),
        (made(PAIR[0], Made(Pool.THREADS, 1, 0.1, serial=True)), "nothing to compare it with", "--repeat 5"),
    ],
    ids=["rising", "few-jobs", "one-pool", "excluded", "one-core", "no-probe", "noise", "no-round", "alone"],
)
def test_what_limits_the_confidence_is_said_with_what_to_measure_next(
    experiment: Experiment, because: str, next_: str
) -> None:
    found = recommend(replace(experiment, caveats=("the stack was shared",)))

    assert because in text(found.because)
    assert next_ in text(found.next)
    assert found.confidence is not Confidence.HIGH
    assert "Note: the stack was shared." in found.reasoning


# -- limits


def test_a_memory_limit_leaves_out_what_is_larger() -> None:
    found = recommend(counting(), Limits(memory=100 * MIB))

    assert found.answer is not None
    assert found.answer.startswith("threads")
    assert "Beyond the limits: prefork:2 (120 MiB" in text(found.reasoning)


def test_a_limit_of_the_tail_leaves_out_what_is_slower() -> None:
    deployments = [Made(Pool.PREFORK, 4, 0.1, idle=20 * MIB), Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.15)]

    assert advice(*deployments, limits=Limits(p99=0.9)).compared == ("threads:8", "gevent:8")


def test_the_only_one_within_the_limits_is_the_answer() -> None:
    found = advice(
        Made(Pool.PREFORK, 8, 0.1, per_slot=PROCESS), Made(Pool.GEVENT, 8, 0.2), limits=Limits(memory=100 * MIB)
    )

    assert found.answer == "gevent:8"
    assert (found.beside, found.headline) == ((), "Only gevent:8 keeps the limits.")


def test_limits_that_nobody_keeps_are_no_answer_and_say_what_would_do() -> None:
    found = advice(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2), limits=Limits(memory=MIB))

    assert found.answer is None
    assert found.because == ("no deployment keeps the limits",)
    assert "Beyond the limits: threads:8 (60.8 MiB, p99 " in text(found.reasoning)


def test_memory_that_was_not_measured_does_not_keep_a_limit() -> None:
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2))
    blind = remeasured(experiment, lambda of: replace(of, usage=None), "threads:8")

    assert recommend(blind, Limits(memory=100 * MIB)).answer == "gevent:8"
    assert recommend(blind).answer == "threads:8"


# -- whatever was measured


@settings(max_examples=60, deadline=None)
@given(
    pools=st.lists(st.sampled_from(list(Pool)), min_size=1, max_size=3, unique=True),
    slots=st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True),
    setups=st.lists(st.sampled_from([PLAIN, Setup(2), Setup(2, 9, False)]), min_size=1, max_size=2, unique=True),
    noise=st.floats(0.0, 0.5),
    rounds=st.integers(0, 7),
    work=st.sampled_from([0.0, 0.05]),
    cores=st.floats(0.5, 8.0),
    seed=st.integers(0, 10_000),
)
def test_an_answer_is_one_of_the_deployments_and_no_answer_has_its_reasons(  # noqa: PLR0917 - hypothesis' arguments
    pools: list[Pool],
    slots: list[int],
    setups: list[Setup],
    noise: float,
    rounds: int,
    work: float,
    cores: float,
    seed: int,
) -> None:
    deployments = [
        Made(pool, n, 0.1, noise=noise, work=work, setup=setup) for pool in pools for n in slots for setup in setups
    ]
    found = recommend(made(*deployments, jobs=16, rounds=rounds, seed=seed, cores=cores))

    if found.answer is None:
        assert found.confidence is Confidence.NONE
        assert found.because
        assert found.next
        return
    assert found.answer in found.compared
    slots_of_answer, _, options = found.answer.partition(":")[2].partition("+")
    assert f" -c {slots_of_answer} " in (found.command or "")
    assert ("$(seq 2)" in (found.command or "")) == ("workers=2" in options)
    assert found.reasoning


def test_of_equals_without_noise_to_speak_of_the_answer_is_a_tie() -> None:
    """Given 100 experiments with three equals, I expect nearly always a tie or no answer, not a winner."""
    won = 0
    for seed in range(100):
        found = advice(*[Made(pool, 8, 0.1, noise=0.03) for pool in Pool], jobs=16, seed=seed, rounds=5)
        won += found.answer is not None and len(found.tied) < 2

    assert won / 100 <= 0.1


def test_the_page_about_the_advice_has_the_shares_that_the_code_has() -> None:
    page = (Path(__file__).parents[2] / "docs" / "advice.md").read_text(encoding="utf-8")

    for name, value in {"margin": MARGIN, "tie": TIE, "regret": REGRET, "alike": ALIKE}.items():
        assert f"| {name} | {value:.0%} |".replace("%", " %") in page
    assert f"{FULL:.0%}".replace("%", " %") + " of the effective cores" in page
    assert f"from {ONE_CORE} of the one core" in page
    assert f"{SEVERAL_CORES} effective cores" in page
