"""From interrupted jobs to times: per kind of fault and pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.mix import Planned
from chaos.report import Recovery, Spread, Struck
from chaos.schedule import Kind
from chaos.subject import Blow, Ended, Interruption
from ledger.jobs import Pool

UNKNOWN = "no fault that we know of"
STORM = 15.0  # seconds around a kill of Redis or of the sweep in which recovery waits for them


def rows(blows: Sequence[Blow], interruptions: Sequence[Interruption]) -> tuple[Recovery, ...]:
    """One for each kind and pool that was struck or interrupted."""
    made = []
    kinds: list[Kind | None] = [*Kind, None]
    for kind in kinds:
        for pool in Pool:
            struck = [blow for blow in blows if kind and blow.kind is kind and blow.pool in (pool, None)]
            mine = [
                each
                for each in interruptions
                if each.pool is pool and (blows[each.blow].kind if each.blow >= 0 else None) is kind
            ]
            if mine or any(blow.pool is pool for blow in struck):
                made.append(
                    Recovery(
                        kind=kind.value if kind else UNKNOWN,
                        pool=pool.value,
                        faults=len(struck),
                        interrupted=len(mine),
                        never_again=sum(each.again is None for each in mine),
                        back=Spread.of([each.back for each in mine if each.back is not None]),
                        again=Spread.of([each.again for each in mine if each.again is not None]),
                    )
                )
    return tuple(made)


def overall(blows: Sequence[Blow], interruptions: Sequence[Interruption]) -> dict[str, Spread | None]:
    """Of all interrupted jobs whose fault is known; and of the calm ones: Redis and sweep were there all the time."""
    known = [each for each in interruptions if each.blow >= 0]
    storms = [blow.at for blow in blows if blow.kind in (Kind.REDIS, Kind.SWEEP)]
    calm = [each for each in known if all(abs(blows[each.blow].at - storm) > STORM for storm in storms)]
    return {
        "back": Spread.of([each.back for each in known if each.back is not None]),
        "again": Spread.of([each.again for each in known if each.again is not None]),
        "calm back": Spread.of([each.back for each in calm if each.back is not None]),
        "calm again": Spread.of([each.again for each in calm if each.again is not None]),
    }


def struck(blows: Sequence[Blow], interruptions: Sequence[Interruption], begun: float) -> tuple[Struck, ...]:
    """The faults one by one, in their order."""
    listed = []
    for number, blow in enumerate(blows):
        mine = [each for each in interruptions if each.blow == number]
        listed.append(
            Struck(
                kind=blow.kind.value,
                pool=blow.pool.value if blow.pool else None,
                members=" ".join(blow.members),
                at=round(blow.at - begun, 2),
                jobs=len(mine),
                back=_latest([each.back for each in mine]),
                again=_latest([each.again for each in mine]),
                note=blow.note,
            )
        )
    return tuple(sorted(listed, key=lambda each: each.at))


def redis_gap(blows: Sequence[Blow], jobs: Sequence[Planned], ended: Mapping[str, Ended]) -> dict[str, Spread | None]:
    """By pool, from each kill of Redis until the next job begins."""
    gaps: dict[str, Spread | None] = {}
    for pool in Pool:
        starts = sorted(at for job in jobs if job.pool is pool for at in ended[job.id].starts)
        spans = []
        for blow in blows:
            if blow.kind is Kind.REDIS:
                following = next((at for at in starts if at > blow.at), None)
                spans += [] if following is None else [following - blow.at]
        gaps[pool.value] = Spread.of(spans)
    return gaps


def _latest(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(max(known), 2) if known else None
