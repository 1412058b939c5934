"""The HTTP/1.1 loop: head in, function by path, answer out, line in the log, next head.

A connection's task ends when the client leaves, when an answer ends the connection, or when the
origin stops; in each case the exchange under way is logged first.
"""

import asyncio
import contextlib
import sys
import traceback

from origin import faults, files  # noqa: F401 - importing them registers their paths
from origin.access_log import AccessLog
from origin.connection import Connection, HeadTooLongError
from origin.exchange import AnsweredError, BadRequestError, Exchange, Request, head_text
from origin.routes import ROUTES
from origin.state import State

# The kernel caps it; 1,000 clients may connect in the same moment.
BACKLOG = 4096


class Origin:
    """The server: listen, answer, stop."""

    def __init__(self, log: AccessLog) -> None:
        """Prepare to serve, with nothing remembered."""
        self._log = log
        self._state = State()

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Start to accept connections."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: Connection(self._serve), host, port, backlog=BACKLOG)

    def stop(self) -> None:
        """End work in threads; the tasks end with their loop."""
        self._state.digests.stop()

    async def _serve(self, connection: Connection) -> None:
        """Answer one connection's requests in order."""
        try:
            while await self._serve_one(connection):
                pass
        except HeadTooLongError as error:
            await self._refuse(connection, 431, error)
        except BadRequestError as error:
            await self._refuse(connection, 400, error)
        except ConnectionResetError:
            pass  # `_serve_one` has noted it
        finally:
            connection.close()

    async def _serve_one(self, connection: Connection) -> bool:
        """Answer the next request; return whether another one may follow."""
        request = Request.parse(await connection.read_head())
        exchange = Exchange(connection, request, self._state)
        aborted = False
        try:
            await self._answer(exchange)
        except AnsweredError:
            pass
        except (asyncio.CancelledError, ConnectionResetError):
            aborted = True
            raise
        except Exception:
            # A defect of the origin: the client must see an error, the log its cause.
            traceback.print_exc(file=sys.stderr)
            aborted, exchange.keep_alive = True, False
        finally:
            seconds = asyncio.get_running_loop().time() - exchange.arrived
            self._log.note(exchange, seconds, aborted)
        return exchange.keep_alive

    @staticmethod
    async def _refuse(connection: Connection, status: int, error: Exception) -> None:
        """Answer a head that could not be read as a request."""
        text = f"{error}\n".encode()
        headers = {"Content-Length": str(len(text))}
        with contextlib.suppress(ConnectionResetError):
            await connection.send(head_text(status, headers, keep_alive=False) + text)

    async def _answer(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.method not in ("GET", "HEAD"):
            exchange.keep_alive = False
            await exchange.text(405, "GET or HEAD only\n", {"Allow": "GET, HEAD"})
            return
        found = ROUTES.find(request.path)
        if found is None:
            await exchange.text(404, f"no such path: {request.path}; see /index\n")
            return
        answer, exchange.rest = found
        try:
            await answer(exchange)
        except BadRequestError as error:
            if exchange.status:
                raise
            await exchange.text(400, f"{error}\n")
