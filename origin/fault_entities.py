"""Faults of content and ranges: what catches a client that splices. The table is in faults.py."""

from collections.abc import Callable
from dataclasses import replace

from origin.answers import Offer, Reply, answer, honest, part_headers, plan, send_reply
from origin.content import Entity
from origin.exchange import Exchange
from origin.fault_parts import entity_of, send_half, visit
from origin.routes import ROUTES

EXCESS_TOTAL = 1000


@ROUTES.add("/faults/resume")
async def resume(exchange: Exchange) -> None:
    """Break off, then resume properly."""
    await _resumable(exchange, honest(entity_of(exchange)))


@ROUTES.add("/faults/resume-date")
async def resume_date(exchange: Exchange) -> None:
    """Break off, then resume properly for those who send the date."""
    await _resumable(exchange, replace(honest(entity_of(exchange)), etag=None))


@ROUTES.add("/faults/changed-content")
async def changed_content(exchange: Exchange) -> None:
    """Change the file, and say so."""
    await _changing(exchange, honest)


@ROUTES.add("/faults/changed-no-etag")
async def changed_no_etag(exchange: Exchange) -> None:
    """Change the file with nothing to notice it by."""
    await _changing(exchange, lambda entity: Offer(entity, None, None))


@ROUTES.add("/faults/changed-weak-etag")
async def changed_weak_etag(exchange: Exchange) -> None:
    """Change the bytes and call them equivalent."""
    await _changing(exchange, lambda entity: Offer(entity, 'W/"equivalent"', None))


@ROUTES.add("/faults/changed-ignores-if-range")
async def changed_ignores_if_range(exchange: Exchange) -> None:
    """Change the file and answer the range all the same."""
    await _changing(exchange, honest, ignored="if-range")


@ROUTES.add("/faults/lying-range")
async def lying_range(exchange: Exchange) -> None:
    """Send a part of the asked length that starts one byte earlier, with a true Content-Range."""

    def bend(entity: Entity, reply: Reply) -> Reply:
        shift = -1 if reply.start else 1
        start, stop = reply.start + shift, min(entity.size, reply.stop + shift)
        return replace(
            reply, start=start, stop=stop, headers={**reply.headers, **part_headers(start, stop, entity.size)}
        )

    await _bent(exchange, bend)


@ROUTES.add("/faults/lying-total")
async def lying_total(exchange: Exchange) -> None:
    """Disagree with the first answer about the size."""

    def bend(entity: Entity, reply: Reply) -> Reply:
        total = entity.size + EXCESS_TOTAL
        return replace(reply, headers={**reply.headers, **part_headers(reply.start, reply.stop, total)})

    await _bent(exchange, bend)


@ROUTES.add("/faults/range-ignored")
async def range_ignored(exchange: Exchange) -> None:
    """Send everything again."""
    await _bent(exchange, lambda entity, _: plan(honest(entity), "GET", {}))


@ROUTES.add("/faults/range-416")
async def range_416(exchange: Exchange) -> None:
    """Claim that the range does not exist."""
    await _bent(exchange, lambda entity, _: plan(honest(entity), "GET", {"range": f"bytes={entity.size}-"}))


async def _resumable(exchange: Exchange, offer: Offer) -> None:
    if visit(exchange) <= exchange.number("times", 1):
        await send_half(exchange, offer.entity, plan(offer, exchange.request.method, exchange.request.headers))
    else:
        await answer(exchange, offer)


async def _changing(exchange: Exchange, offered: Callable[[Entity], Offer], ignored: str = "") -> None:
    number = visit(exchange)
    offer = offered(entity_of(exchange, edition=number))
    headers = {name: value for name, value in exchange.request.headers.items() if name != ignored}
    reply = plan(offer, exchange.request.method, headers)
    if number == 1:
        await send_half(exchange, offer.entity, reply)
    else:
        await send_reply(exchange, offer.entity, reply)


async def _bent(exchange: Exchange, bend: Callable[[Entity, Reply], Reply]) -> None:
    """Bend the answers that would be partial; the first other one of a key is cut in the middle."""
    entity = entity_of(exchange)
    reply = plan(honest(entity), exchange.request.method, exchange.request.headers)
    if reply.status == 206:
        await send_reply(exchange, entity, bend(entity, reply))
    elif exchange.param("key") and visit(exchange) == 1:
        await send_half(exchange, entity, reply)
    else:
        await send_reply(exchange, entity, reply)
