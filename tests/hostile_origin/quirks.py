"""Answers of real servers that are odd: most can be read, some cannot. The table is in __init__.py."""

from functools import partial

from origin.http import AnsweredError, BadRequestError, Exchange, part_headers
from origin.server import HTML, fault_entity, route, visit, whole

_OK = "HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + "Transfer-Encoding: chunked\r\n"
# The head of an answer and what frames its body; ``{n}`` is the length, ``{half}`` half of it in hexadecimal.
_ANSWERS: dict[str, tuple[str, str, str]] = {  # before the body, in its middle, after it
    "length-list": (_OK + "Content-Length: {n}, {n}\r\n\r\n", "", ""),
    "length-twice": (_OK + "Content-Length: {n}\r\nContent-Length:   {n}  \r\n\r\n", "", ""),
    "many-headers": (_OK + "X-H: 1\r\n" * 150 + "Content-Length: {n}\r\n\r\n", "", ""),
    "bare-lf": ("HTTP/1.1 200 OK\nContent-Length: {n}\n\n", "", ""),
    "folded": (_OK + "X-Long: a\r\n  b c\r\nContent-Length:\r\n {n}\r\n\r\n", "", ""),
    "terse": ("HTTP/1.1 200\r\ncontent-length:{n}\r\nx-empty:\r\n\r\n", "", ""),
    "junk-before-length": (_OK + "this is no header\r\nContent-Length: {n}\r\n\r\n", "", ""),
    "junk-after-length": (_OK + "Content-Length: {n}\r\nthis is no header\r\nX: 1\r\n\r\n", "", ""),
    "blank-before-colon": (_OK + "Content-Length : {n}\r\nX: 1\r\n\r\n", "", ""),
    "icy": ("ICY 200 OK\r\nContent-Length: {n}\r\n\r\n", "", ""),
    "informational": (
        "HTTP/1.1 100 Continue\r\n\r\n"
        + "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" * 2
        + _OK
        + "Content-Length: {n}\r\n\r\n",
        "",
        "",
    ),
    "odd-chunks": (
        _OK + 'Transfer-Encoding: Chunked\r\nTrailer: X-Sum\r\n\r\n0000{half};ext="a;b"  \r\n',
        "\r\n{half}   \r\n",
        "\r\n0\r\nX-Sum: 1\r\n\r\n",
    ),
    "chunks-and-length": (
        _CHUNKED + "Content-Length: 5000\r\n\r\n{half}\r\n",
        "\r\n{half}\r\n",
        "\r\n0\r\n\r\n",
    ),
    "gzip-chunks": (
        _OK + "Transfer-Encoding: gzip, chunked\r\n\r\n{half}\r\n",
        "\r\n{half}\r\n",
        "\r\n0\r\n\r\n",
    ),
    "kept-and-closed": (_OK + "Connection: keep-alive\r\nContent-Length: {n}\r\n\r\n", "", ""),
    "http10": ("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n", "", ""),
}
_ENDS = ("kept-and-closed", "http10", "icy")  # the connection with it


async def _verbatim(exchange: Exchange) -> None:
    """Send an answer of the table above."""
    name, entity = exchange.path.split("/")[2], fault_entity(exchange)
    exchange.keep_alive &= name not in _ENDS
    exchange.status, half = 200, entity.size // 2
    before, middle, after = (part.format(n=entity.size, half=f"{half:x}").encode() for part in _ANSWERS[name])
    if exchange.method == "HEAD":
        await exchange.connection.send(before.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        raise AnsweredError
    await exchange.connection.send(before)
    await exchange.stream(entity, 0, half)
    await exchange.connection.send(middle)
    await exchange.stream(entity, half, entity.size)
    await exchange.connection.send(after)


for _name in _ANSWERS:
    route(f"/faults/{_name}")(_verbatim)


async def _file(exchange: Exchange) -> None:
    """The file, as plainly as can be."""
    entity = fault_entity(exchange)
    await exchange.head(200, whole(entity).headers)
    await exchange.stream(entity, 0, entity.size)


async def _to(exchange: Exchange, location: str | None, **headers: str) -> None:
    where = {} if location is None else {"Location": location}
    await exchange.text(302, "elsewhere\n", where | {name.replace("_", "-"): text for name, text in headers.items()})


@route("/faults/redirect-blank")
async def redirect_blank(exchange: Exchange) -> None:
    """Write a blank into Location, and some around it."""
    if exchange.rest == "a%20b.bin":
        await _file(exchange)
    elif exchange.rest:
        raise BadRequestError(f"expected a%20b.bin, got {exchange.rest!r}")
    else:
        await _to(exchange, f" /faults/redirect-blank/a b.bin?{exchange.query} \t")


@route("/faults/redirect-utf8")
async def redirect_utf8(exchange: Exchange) -> None:
    """Write UTF-8 into Location."""
    if exchange.rest == "%C5%BE%E6%97%A5.bin":
        await _file(exchange)
    else:
        await _to(exchange, f"/faults/redirect-utf8/ž日.bin?{exchange.query}".encode().decode("latin-1"))


@route("/faults/redirect-query")
async def redirect_query(exchange: Exchange) -> None:
    """Say only the query."""
    await (_file(exchange) if exchange.param("hop") else _to(exchange, f"?hop=1&{exchange.query}"))


@route("/faults/redirect-cookie")
async def redirect_cookie(exchange: Exchange) -> None:
    """Set a cookie and end another; the target wants it."""
    if exchange.rest != "in":
        ended = "old=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/"
        where = f"/faults/redirect-cookie/in?{exchange.query}"
        await _to(exchange, where, Set_Cookie="tok=abc; Path=/; HttpOnly", set_cookie=ended)
    elif exchange.headers.get("cookie") == "tok=abc":
        await _file(exchange)
    else:
        await exchange.text(403, "no cookie\n")


@route("/faults/redirect-self")
async def redirect_self(exchange: Exchange) -> None:
    """Ask for the same again, with a cookie."""
    if "seen=1" in exchange.headers.get("cookie", ""):
        await _file(exchange)
    else:
        await _to(exchange, exchange.target, Set_Cookie="seen=1; Path=/")


LOGIN = "<!DOCTYPE html><title>Sign in</title>\n"


@route("/faults/login.bin")
async def login(exchange: Exchange) -> None:
    """Let nobody in without a word, as many sites do."""
    if exchange.rest:
        await exchange.text(200, LOGIN, HTML)
    else:
        await _to(exchange, "/faults/login.bin/sign-in")


async def _part(exchange: Exchange, *, said: bool) -> None:
    """Call the whole a part."""
    entity = fault_entity(exchange)
    await exchange.head(206, part_headers(0, entity.size, entity.size) if said else whole(entity).headers)
    await exchange.stream(entity, 0, entity.size)


async def _later(exchange: Exchange, status: int, **headers: str) -> None:
    """Another answer first."""
    if visit(exchange) == 1:
        await exchange.text(status, "later\n", {name.replace("_", "-"): text for name, text in headers.items()})
    else:
        await _file(exchange)


for _name, _answer in {
    "redirect-empty": partial(_to, location=""),
    "redirect-nowhere": partial(_to, location=None),
    "part-unasked": partial(_part, said=True),
    "part-unsaid": partial(_part, said=False),
    "not-modified": partial(_later, status=304),
    "accepted": partial(_later, status=202, Retry_After="1"),
    "forbidden-for-now": partial(_later, status=403, Retry_After="1"),
}.items():
    route(f"/faults/{_name}")(_answer)


@route("/faults/challenge")
async def challenge(exchange: Exchange) -> None:
    """Want proof of a browser."""
    await exchange.text(202, "", {"x-amzn-waf-action": "challenge", "Content-Length": "0"})


@route("/faults/escapes")
async def escapes(exchange: Exchange) -> None:
    """Have signed the path as it was written."""
    if exchange.rest == ESCAPES:
        await _file(exchange)
    else:
        await exchange.text(403, f"{exchange.rest!r} was not signed\n")


ESCAPES = "a%2eb%2Fc%7ed%2BE"
