"""The server that all download from: nginx where it is installed, our own origin otherwise; and Redis as deployed."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Self

from stack.processes import Command, Process
from tests.origin_process import OriginProcess
from tests.tied import tied
from tests.valkey_process import ValkeyProcess
from tests.waiting import wait_for

_RATE = 10 * 1024  # bytes/s of nginx on /slow/
_CONF = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; default_type application/octet-stream;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} backlog=4096; root {folder}/files;
    location /slow/ {{ alias {folder}/files/; limit_rate 10k; }}
  }}
}}
"""


class Own(OriginProcess):
    """Where there is no nginx: a server in Python, which the fast ones wait for. It compares pools, not tools."""

    def fill(self, kind: str, count: int, size: int) -> list[str]:
        """URLs of so many files."""
        return [f"{self.url}/files/{kind}{number}?size={size}" for number in range(count)]

    def slow(self, count: int, seconds: float) -> list[str]:
        """URLs of files that take so long each."""
        return [f"{self.url}/paced/{seconds}/{number}?size=200000" for number in range(count)]


class Nginx:
    """Serves ``files`` below a folder; under ``/slow/`` at 10 KiB/s each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "files").mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def slow(self, count: int, seconds: float) -> list[str]:
        return [url.replace("/paced/", "/slow/paced/") for url in self.fill("paced", count, int(_RATE * seconds))]

    def fill(self, kind: str, count: int, size: int) -> list[str]:
        """Files of random bytes."""
        folder = self._folder / "files" / kind
        folder.mkdir(exist_ok=True)
        block = os.urandom(min(size, 1 << 20))
        for number in range(count):
            with (folder / str(number)).open("wb") as file:
                file.write(number.to_bytes(8, "big"))
                for at in range(0, size, len(block)):
                    file.write(block[8 if at == 0 else 0 : size - at])
        return [f"{self.url}/{kind}/{number}" for number in range(count)]

    def __enter__(self) -> Self:
        conf = self._folder / "nginx.conf"
        conf.write_text(_CONF.format(folder=self._folder, port=self.port))
        command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(self._folder), "-c", str(conf)]
        self._process = Process(Command("nginx", tied(command), os.environ, self._folder))
        wait_for(self._answers, seconds=20, what="nginx to listen")
        return self

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return self._process.running and probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_: object) -> None:
        self._process.stop(grace=20)


Origin = Nginx | Own


def deployed() -> ValkeyProcess:
    """Redis as it is deployed; the one of the tests waits for the disk at each write."""
    return ValkeyProcess(appendonly=True, options={"appendfsync": "everysec"})
