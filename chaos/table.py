"""Reports as Markdown: ``docs/chaos.md`` is this and nothing else, so no number in it was typed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from chaos.report import Report, Spread
from chaos.words import ABOUT_BOOKS, ABOUT_RECOVERY, INTRODUCTION, REPRODUCE, TRUST

_MIB = 2**20


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
        _table(_OVERALL, [_overall_row(report) for report in only]),
        *(_one_by_one(report) for report in only if report.subject == "downpour"),
        "## Which column not to trust",
        TRUST,
        "## Where and how",
        _table(_RUNS, [_run_row(name, report) for name, report in ordered]),
        REPRODUCE,
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_BOOKS = "subject|jobs|kills|other faults|done|failed|**lost**|**done twice**|wrong or changed files|temp files left"
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
        f"**{books.lost}**" + (f" (`unacked` holds {stranded})" if books.lost and stranded else ""),
        f"**{books.doubled}**" + (f" ({report.feeding.doubled} resubmitted)" if report.feeding.doubled else ""),
        f"{books.wrong_files + books.changed_files + books.strange_files}",
        f"{books.temp_files}",
    ]


def _overall_row(report: Report) -> list[str]:
    interrupted = sum(row.interrupted for row in report.recovery)
    never = sum(row.never_again for row in report.recovery)
    return [
        report.about,
        f"{interrupted:,}",
        f"{never:,}",
        *_spread(report.overall["back"]),
        *_spread(report.overall["again"]),
    ]


def _calm(report: Report) -> str:
    back, again = (report.overall.get(name) for name in ("calm back", "calm again"))
    if back is None:
        return ""
    return (
        f"Where Redis and the sweep were up all the time ({back.count} jobs): back on its queue "
        f"{', '.join(_spread(back))}; running again {', '.join(_spread(again))} (p50, p95, max). "
    )


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
            f"{_calm(report)}Redis killed → the next job begins: {gaps or 'not struck'}. "
            f"Work: {work.attempts:,} attempts for {report.books.submitted:,} jobs, {work.attempts_lost:,} of them "
            f"lost with their holder, {work.handed_back:,} handed back by a worker that was stopping; "
            f"{work.fetched_again:,} files were sent to their last byte more than once. "
            f"The producer submitted {feeding.batches} batches, was killed in the middle of {feeding.killed}, and the "
            f"same command was given again {feeding.runs_again} times. Processes that ended without being touched: "
            f"{exits}. In Redis afterwards: {left}. "
            f"Unhealthy at the end: {', '.join(report.unhealthy) or 'nobody'}.",
        ]
    )


def _run_row(name: str, report: Report) -> list[str]:
    machine, versions = report.machine, report.versions
    names = ("python", "celery", "kombu", "redis", "gevent")
    memory = int(machine["memory"]) / _MIB / 1024
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
