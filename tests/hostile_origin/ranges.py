"""Faults of content and ranges: what catches a client that splices. The table is in __init__.py."""

from collections.abc import Callable, Mapping

from origin.content import Entity
from origin.http import Exchange, Reply, part_headers, plan
from origin.server import fault_entity, route, send_half, visit

EXCESS_TOTAL = 1000


@route("/faults/resume")
async def resume(exchange: Exchange) -> None:
    """Break off, then resume properly."""
    await _resumable(exchange)


@route("/faults/resume-date")
async def resume_date(exchange: Exchange) -> None:
    """Break off, then resume properly for those who send the date."""
    await _resumable(exchange, {"Last-Modified": fault_entity(exchange).last_modified})


@route("/faults/changed-content")
async def changed_content(exchange: Exchange) -> None:
    """Change the file, and say so."""
    await _changing(exchange)


@route("/faults/changed-no-etag")
async def changed_no_etag(exchange: Exchange) -> None:
    """Change the file with nothing to notice it by."""
    await _changing(exchange, {})


@route("/faults/changed-weak-etag")
async def changed_weak_etag(exchange: Exchange) -> None:
    """Change the bytes and call them equivalent."""
    await _changing(exchange, {"ETag": 'W/"equivalent"'})


@route("/faults/changed-ignores-if-range")
async def changed_ignores_if_range(exchange: Exchange) -> None:
    """Change the file and answer the range all the same."""
    await _changing(exchange, ignored="if-range")


@route("/faults/lying-range")
async def lying_range(exchange: Exchange) -> None:
    """Send a part of the asked length that starts one byte earlier, with a true Content-Range."""

    def bend(entity: Entity, reply: Reply) -> Reply:
        shift = -1 if reply.start else 1
        start, stop = reply.start + shift, min(entity.size, reply.stop + shift)
        return Reply(206, start, stop, {**reply.headers, **part_headers(start, stop, entity.size)})

    await _bent(exchange, bend)


@route("/faults/lying-total")
async def lying_total(exchange: Exchange) -> None:
    """Disagree with the first answer about the size."""

    def bend(entity: Entity, reply: Reply) -> Reply:
        total = entity.size + EXCESS_TOTAL
        return reply._replace(headers={**reply.headers, **part_headers(reply.start, reply.stop, total)})

    await _bent(exchange, bend)


@route("/faults/range-ignored")
async def range_ignored(exchange: Exchange) -> None:
    """Send everything again."""
    await _bent(exchange, lambda entity, _: plan(entity, "GET", {}))


@route("/faults/range-416")
async def range_416(exchange: Exchange) -> None:
    """Claim that the range does not exist."""
    await _bent(exchange, lambda entity, _: plan(entity, "GET", {"range": f"bytes={entity.size}-"}))


async def _resumable(exchange: Exchange, validators: Mapping[str, str] | None = None) -> None:
    entity = fault_entity(exchange)
    if visit(exchange) <= exchange.number("times", 1):
        await send_half(exchange, entity, plan(entity, exchange.method, exchange.headers, validators))
    else:
        await exchange.file(entity, validators)


async def _changing(exchange: Exchange, validators: Mapping[str, str] | None = None, *, ignored: str = "") -> None:
    number = visit(exchange)
    entity = fault_entity(exchange, edition=number)
    headers = {name: value for name, value in exchange.headers.items() if name != ignored}
    reply = plan(entity, exchange.method, headers, validators)
    if number == 1:
        await send_half(exchange, entity, reply)
    else:
        await exchange.reply(entity, reply)


async def _bent(exchange: Exchange, bend: Callable[[Entity, Reply], Reply]) -> None:
    """Bend the answers that would be partial; the first other one of a key is cut in the middle."""
    entity = fault_entity(exchange)
    reply = plan(entity, exchange.method, exchange.headers)
    if reply.status == 206:
        await exchange.reply(entity, bend(entity, reply))
    elif exchange.param("key") and visit(exchange) == 1:
        await send_half(exchange, entity, reply)
    else:
        await exchange.reply(entity, reply)
