"""Even pace: how much is due follows from the clock, never from the sum of sleeps."""

import asyncio

from origin.content import Entity
from origin.exchange import Exchange, parse_number

SECONDS_MAX = 24 * 3600


async def pace(exchange: Exchange, entity: Entity, span: tuple[int, int], times: tuple[float, float]) -> None:
    """Send the bytes of span evenly between two loop times; the last byte leaves at the second.

    A client that reads too slowly gets what it missed as soon as it reads again.
    """
    loop = asyncio.get_running_loop()
    (start, stop), (begin, end) = span, times
    state, sent = exchange.state, start
    state.paced += 1
    try:
        while sent < stop:
            await sleep_until(min(end, loop.time() + state.pace_interval_s))
            now = loop.time()
            # One byte short until the end: rounding must not finish early.
            share = 1.0 if now >= end else (now - begin) / (end - begin)
            due = stop if now >= end else min(stop - 1, start + int((stop - start) * share))
            if due > sent:
                await exchange.stream(entity, sent, due)
                sent = due
    finally:
        state.paced -= 1


async def sleep_until(when: float) -> None:
    """Sleep until a loop time, which may have passed."""
    delay = when - asyncio.get_running_loop().time()
    if delay > 0:
        await asyncio.sleep(delay)


def parse_seconds(text: str, what: str) -> float:
    """Read a duration of at most a day, or raise BadRequestError."""
    return parse_number(text, what, SECONDS_MAX)
