"""Reports as Markdown: ``docs/chaos.md`` is this and nothing else, so no number in it was typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chaos.downpour import Downpour
from chaos.faults import CUT_AFTER
from chaos.mix import DESCRIPTION
from chaos.report import Report, Spread
from chaos.run import LEASE, SETTLE
from chaos.schedule import SHARES, Kind
from ledger.settings import Settings
from stack.plan import CONCURRENCY

MESSAGE_GRACE = float(Settings.model_fields["message_grace"].default)
_SIZES = ", ".join(f"{pool} {count}" for pool, count in CONCURRENCY.items())
_PER_HUNDRED = ", ".join(f"{kind} {SHARES[kind]}" for kind in Kind)

INTRODUCTION = f"""
# Chaos, measured

This page is made by `python -m chaos table` from the reports in `docs/chaos/`. Do not edit it.

Workers of all three pools, the sweep, the producer and Redis are killed while thousands of jobs wait and run. Then the
books are balanced from outside. Every file is hashed again, the origin's access log is counted, every record is read
with `producer results`, and Redis is searched for leftovers.

- **Load**: {DESCRIPTION}.
  A producer in the background keeps the queues of all pools full while the faults go on.
- **Deployment**: the Procfile's commands with their default settings (lease {LEASE:g} s), two workers per pool
  ({_SIZES} jobs at once), a sweep, Redis' log on disk as deployed (`appendfsync everysec`).
  Ended processes are started again after 0.1 s, as a container runtime does it.
- **Faults**, in an order and at victims that follow from the seed, per hundred kills:
  {_PER_HUNDRED}.
- **Beside it** a stock Celery app, scaled down: the same download function in a plain task, the same jobs, kills,
  freezes and stops. Its books are marks that each task leaves in a file.

| fault | what happens |
| --- | --- |
| killed | SIGKILL: to a worker with all its children, to a main process without them |
| stopped, then killed | SIGTERM, and SIGKILL after {CUT_AFTER:g} s |
| frozen | SIGSTOP for longer than the lease |
| producer killed | in the middle of a submission; the same command is given again |
| writes refused | Redis wants a replica that does not exist |
| malformed messages | they go in front of a queue |
| disk full | needs root |
| killed by a job | SIGKILL to each process that runs one certain job, until that job ends as `poison` |

| stock app | settings |
| --- | --- |
| default | Celery's own |
| late ack | `acks_late` and `reject_on_worker_lost` |
| tuned | also prefetch 1, visibility timeout 20 s (twice the longest job), restored every second, a polling interval |
"""

ABOUT_BOOKS = f"""
- *Innocent failed*: all failed jobs but those that killed their process.
- *Lost*: no end within {SETTLE:g} s after the queues were empty, with every worker up. The time is shorter if no
  message and no running job was left that could bring an end.
- *`unacked`*: messages on no queue that no worker runs. They return after the visibility timeout, an hour by default.
- *Done twice*: more than one successful end in the subject's own notes. *Resubmitted*: in a batch whose command was run
  again, after its producer was killed or Redis was away; a plain `apply_async` loop cannot know of the first run.
- *Wrong or changed*: other bytes than expected; a file of a job without an end; another inode, size or time of writing
  than when its batch was first seen to be finished.
- Temp files of the stock app are not Celery's fault. Downpour's workers remove those of ended jobs every half minute;
  they are counted after {Downpour.tidies_within:g} s.
"""

ABOUT_RECOVERY = """
A job counts as interrupted when the process that ran it was hit. The clock starts at the signal; of a stop that is cut
short, at its SIGKILL.

- *Back on its queue*: the ledger closes the lost attempt and queues the job. Not known for the stock app.
- *Running again*: the next attempt is claimed. Until then the job's message stands in front of the queue, until a
  worker of its pool takes it and has a free slot.
- *While no worker lives*: at some moment until it ran again, each worker of the pool was down, starting, frozen or
  stopping.
"""

TRUST = f"""
- Where no other worker of the pool lives, *running again* includes some seconds of CPU that a worker takes to start.
- A message on its way to a worker that is killed in turn is missed {MESSAGE_GRACE:g} s later: that makes the maxima.
- *Sent to their last byte more than once* is an upper bound of work done twice: the origin counts what the kernel took.
- Jobs interrupted by *child killed* and *main process killed* are few because most jobs last milliseconds.
- A fault near a kill of Redis is recovered later by as long as Redis was away. That is in the numbers.
- All of it ran on one small machine that had other work (see the load average), with one clock and no network.
- The order of the faults is repeatable, their moments are not. The stock runs are short: a zero in them is no promise.
"""

REPRODUCE = """
```sh
make chaos                                  # the large run, and this page: about 25 minutes
make chaos-short                            # some 20 kills, as a test: three minutes
python -m chaos run --seed 1 --kills 40 --jobs 8000 --out docs/chaos/downpour-40.json
python -m chaos stock --profile tuned --seed 1 --kills 40 --jobs 8000 --out docs/chaos/stock-tuned.json
python -m chaos table docs/chaos/*.json >docs/chaos.md
```

The exit code is 1 if the books do not balance. `--evidence DIR` keeps every log if anything is wrong.
"""

_CASES = {
    "lives ": "… while another worker of the pool lives",
    "calm ": "… and Redis, the sweep and the disk are well",
    "none ": "… while no worker of the pool lives",
}
_BOOKS = (
    "subject|jobs|kills|other faults|done|failed|**innocent failed**|**lost**|**done twice**|wrong or changed files|"
    "temp files left"
)


def render(reports: Sequence[tuple[str, Report]]) -> str:
    """One page for all reports, each with the name of its file; Downpour's largest run first."""
    ordered = sorted(reports, key=lambda each: (each[1].subject != "downpour", -each[1].books.submitted, each[0]))
    only = [report for _, report in ordered]
    parts = [
        INTRODUCTION,
        "## The books",
        _table(_BOOKS, [_books_row(report) for report in only]),
        ABOUT_BOOKS,
        "## Time to recover",
        ABOUT_RECOVERY,
        _table(_OVERALL, [row for report in only for row in _overall_rows(report)]),
        *(_one_by_one(report) for report in only if report.subject == "downpour"),
        "## Which column not to trust",
        TRUST,
        "## Where and how",
        _table(_RUNS, [_run_row(name, report) for name, report in ordered]),
        REPRODUCE,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_OVERALL = "subject|jobs interrupted|never ran again|back on its queue: p50|p95|max|running again: p50|p95|max"
_FAULTS = "fault|pool|faults|jobs interrupted|back on its queue: p50|p95|max|running again: p50|p95|max"
_RUNS = "file|seed|load|CPUs, memory, load average|versions|command"


def _books_row(report: Report) -> list[str]:
    books = report.books
    others = sum(report.faults.values()) - report.kills
    failed = ", ".join(f"{count} {kind}" for kind, count in report.work.failed_kinds.items())
    stranded = books.leftovers.get("unacked", 0)
    numbers = [books.submitted, report.kills, others, books.done]
    return [
        report.about,
        *(f"{number:,}" for number in numbers),
        f"{books.failed}" + (f" ({failed})" if failed else ""),
        f"**{books.innocent_failed}**",
        f"**{books.lost}**" + (f" (`unacked` holds {stranded})" if books.lost and stranded else ""),
        f"**{books.doubled}**" + (f" ({report.feeding.doubled} resubmitted)" if report.feeding.doubled else ""),
        f"{books.wrong_files + books.changed_files + books.strange_files}",
        f"{books.temp_files}",
    ]


def _overall_rows(report: Report) -> Iterable[list[str]]:
    spreads, rows = report.overall, report.recovery
    interrupted, never = sum(row.interrupted for row in rows), sum(row.never_again for row in rows)
    numbers = [*_spread(spreads["back"]), *_spread(spreads["again"])]
    yield [report.about, f"{interrupted:,}", f"{never:,}", *numbers]
    for case, words in _CASES.items():
        back, again = spreads.get(f"{case}back"), spreads.get(f"{case}again")
        if back:
            never = back.count - (again.count if again else 0)
            yield [words, f"{back.count:,}", f"{never:,}", *_spread(back), *_spread(again)]


def _one_by_one(report: Report) -> str:
    rows = [
        [row.kind, row.pool, f"{row.faults}", f"{row.interrupted}", *_spread(row.back), *_spread(row.again)]
        for row in report.recovery
    ]
    gaps = "; ".join(
        f"{pool} p50 {gap.p50:.1f} s, max {gap.max:.1f} s"
        for pool, gap in report.redis_gap.items()
        if gap is not None and pool != "away"
    )
    exits = ", ".join(f"{name} ({count}×)" for name, count in report.unasked_exits.items()) or "none"
    left = ", ".join(f"{what} {count}" for what, count in report.books.leftovers.items() if count)
    work, feeding = report.work, report.feeding
    return "\n\n".join(
        [
            f"### {report.about}: {report.books.submitted:,} jobs, {report.kills} kills",
            _table(_FAULTS, rows),
            f"Of {report.books.malformed:,} malformed messages {report.books.leftovers.get('dead-letters', 0)} ended "
            f"as dead letters. "
            f"Redis killed → the next job begins: {gaps or 'not struck'}. "
            f"Work: {work.attempts:,} attempts for {report.books.submitted:,} jobs, {work.attempts_lost:,} of them "
            f"lost with their holder, {work.handed_back:,} handed back by a worker that was stopping; "
            f"{work.fetched_again:,} files were sent to their last byte more than once. "
            f"The producer submitted {feeding.batches} batches, was killed in the middle of {feeding.killed}, and the "
            f"same command was given again {feeding.runs_again} times. Processes that ended without being touched: "
            f"{exits}. In Redis afterwards: {left}. "
            f"Unhealthy at the end: {', '.join(report.unhealthy) or 'nothing'}.",
        ]
    )


def _run_row(name: str, report: Report) -> list[str]:
    machine, versions = report.machine, report.versions
    names = ("python", "celery", "kombu", "redis", "gevent")
    memory = int(machine["memory"]) / 2**30
    return [
        f"`{name}`",
        f"{report.seed}",
        f"{report.load_seconds:.0f} s",
        f"{machine['cpus']}, {memory:.0f} GiB, {machine['load at the end']}",
        ", ".join(f"{each} {versions[each]}" for each in names),
        f"`{report.command}`",
    ]


def _spread(spread: Spread | None) -> list[str]:
    return ["–", "–", "–"] if spread is None else [f"{value:.1f} s" for value in (spread.p50, spread.p95, spread.max)]


def _table(head: str, rows: Iterable[Sequence[str]]) -> str:
    columns = head.split("|")
    rule = ["---", *("---:" if column not in ("pool", "command", "versions") else "---" for column in columns[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, rule, *rows))


def summary(report: Report) -> str:
    """A line for a terminal."""
    books, back, again = report.books, report.overall["back"], report.overall["again"]
    return (
        f"{report.subject}: {books.submitted:,} jobs, {report.kills} kills, {sum(report.faults.values())} faults in "
        f"{report.load_seconds:.0f} s: {books.done:,} done, {books.failed} failed, {books.cancelled} cancelled, "
        f"{books.lost} lost, {books.doubled} twice, {books.temp_files} temp files; "
        f"back on the queue p50/p95/max {' '.join(_spread(back))}, running again {' '.join(_spread(again))}"
    )


def complaints(report: Report) -> str:
    """Why a report is not good."""
    found = [f"{what}: {count}" for what, count in report.books.wrong.items()]
    found += [f"left in Redis: {what}" for what in report.books.not_allowed]
    found += [f"unhealthy: {name}" for name in report.unhealthy]
    found += [] if report.complete else ["cut off by its deadline"]
    return "; ".join(found)
