"""Run the origin: `python -m origin --host 127.0.0.1 --port 8080 --access-log origin.jsonl`."""

import sys

try:
    import argparse
    import asyncio
    import resource
    import signal
    from contextlib import nullcontext
    from pathlib import Path

    from origin.server import OriginServer
except KeyboardInterrupt:  # before anything was begun
    sys.exit(130)

OPEN_FILES = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m origin", description="Downpour's file server")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 chooses a free one")
    parser.add_argument("--url", default="", help="in a container: where the others find it, for the front page")
    parser.add_argument("--access-log", type=Path, help="append one JSON line per request")
    options = parser.parse_args()
    allow_many_connections()
    file: Path | None = options.access_log
    # Closed after the loop: its end cancels the open exchanges, and they still write their lines.
    with file.open("a", buffering=1, encoding="utf-8") if file else nullcontext() as log:
        asyncio.run(serve(options.host, options.port, OriginServer(log, options.url)))


async def serve(host: str, port: int, origin: OriginServer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await origin.listen(host, port)
    host, port = server.sockets[0].getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    sys.stderr.write(f"origin listening on http://{shown}:{port}\n")
    sys.stderr.flush()
    await stop.wait()
    # Not wait_closed: it would wait for clients that may take hours.
    server.close()


def allow_many_connections() -> None:
    """Raise the limit of open files as far as the system allows; a connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
