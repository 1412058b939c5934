"""What several faults do: choose the entity, count visits, cut a body."""

from origin.answers import Reply
from origin.content import Entity
from origin.exchange import BadRequestError, Exchange


def entity_of(exchange: Exchange, edition: int = 0) -> Entity:
    """Return the entity that `name=` and `size=` describe."""
    return exchange.entity(exchange.param("name", fault_name(exchange)), edition)


def fault_name(exchange: Exchange) -> str:
    """Return the segment of the path that chose the fault."""
    return exchange.request.path.split("/")[2]


def visit(exchange: Exchange) -> int:
    """Return which GET of its `key=` this one is, from 1. A HEAD sees the number but does not count."""
    key = exchange.param("key")
    if not key:
        raise BadRequestError(f"{fault_name(exchange)} counts requests: expected key=, got none")
    return exchange.state.visit(f"{fault_name(exchange)} {key}", count=exchange.request.method == "GET")


async def send_half(exchange: Exchange, entity: Entity, reply: Reply) -> None:
    """Send a reply whose body ends in the middle of what its headers promise."""
    exchange.keep_alive = False
    await exchange.head(reply.status, reply.headers)
    await exchange.stream(entity, reply.start, reply.start + (reply.stop - reply.start) // 2)


def whole(entity: Entity) -> Reply:
    """Return a plain 200 without validators."""
    return Reply(200, 0, entity.size, {"Content-Type": entity.content_type, "Content-Length": str(entity.size)})
