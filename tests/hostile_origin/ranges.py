"""Faults of content and ranges: what catches a client that splices. The table is in __init__.py."""

from collections.abc import Callable, Mapping
from functools import partial

from origin.content import Entity
from origin.http import Exchange, Reply, part_headers, plan
from origin.server import fault_entity, route, send_half, visit

EXCESS_TOTAL = 1000


async def _resumable(exchange: Exchange, *, by_date: bool) -> None:
    entity = fault_entity(exchange)
    validators = {"Last-Modified": entity.last_modified} if by_date else None
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


def _earlier(entity: Entity, reply: Reply) -> Reply:
    """A part of the asked length that starts one byte earlier, with a true Content-Range."""
    shift = -1 if reply.start else 1
    start, stop = reply.start + shift, min(entity.size, reply.stop + shift)
    return Reply(206, start, stop, {**reply.headers, **part_headers(start, stop, entity.size)})


def _longer(entity: Entity, reply: Reply) -> Reply:
    total = entity.size + EXCESS_TOTAL
    return reply._replace(headers={**reply.headers, **part_headers(reply.start, reply.stop, total)})


for _fault, _answer in {
    "resume": partial(_resumable, by_date=False),
    "resume-date": partial(_resumable, by_date=True),
    "changed-content": partial(_changing),
    "changed-no-etag": partial(_changing, validators={}),
    "changed-weak-etag": partial(_changing, validators={"ETag": 'W/"equivalent"'}),
    "changed-ignores-if-range": partial(_changing, ignored="if-range"),
    "lying-range": partial(_bent, bend=_earlier),
    "lying-total": partial(_bent, bend=_longer),
    "range-ignored": partial(_bent, bend=lambda entity, _: plan(entity, "GET", {})),
    "range-416": partial(_bent, bend=lambda entity, _: plan(entity, "GET", {"range": f"bytes={entity.size}-"})),
}.items():
    route(f"/faults/{_fault}")(_answer)
