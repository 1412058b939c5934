"""Who is answered by Flower, and what a browser may do with its pages.

* A page elsewhere can give its own name the address of this machine (DNS rebinding); its scripts then read Flower as
  their own site. Such a request has that name as its Host, so only addresses, ``localhost`` and the names in
  FLOWER_ALLOWED_HOSTS are answered.
* No other page may frame Flower, and its pages run no scripts but their own.
* ``/metrics`` names every worker and task: with a password it asks for it, too.
* ``/healthcheck`` answers at its own path, whatever FLOWER_URL_PREFIX says: the health checks know no prefix.

Kept true by ``tests/service/test_flower_access.py``.
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from flower.app import Flower
from flower.views import BaseHandler
from flower.views.monitor import Healthcheck, Metrics
from tornado.web import HTTPError, authenticated

HOSTS = {"localhost", *os.environ.get("FLOWER_ALLOWED_HOSTS", "").lower().replace(",", " ").split()}
# The one script inside a page: workers.html says whether the list of workers refreshes itself.
SCRIPTS = [b64encode(sha256(f"\nvar autorefresh = {on};\n".encode()).digest()).decode() for on in (0, 1)]
POLICY = (
    f"default-src 'self'; script-src 'self' 'sha256-{SCRIPTS[0]}' 'sha256-{SCRIPTS[1]}'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


class UnknownHost(BaseHandler):  # type: ignore[misc]
    def prepare(self) -> None:
        raise HTTPError(
            421, f"expected an address, localhost or a name in FLOWER_ALLOWED_HOSTS, got {self.request.host_name!r}"
        )


def is_known(host: str) -> bool:
    try:
        return bool(ip_address(host.strip("[]")))
    except ValueError:
        return host in HOSTS


def guard() -> None:
    """Before Flower's application is made."""
    find_handler, set_headers = Flower.find_handler, BaseHandler.set_default_headers

    def find_guarded(flower: Flower, request: Any, **more: Any) -> Any:
        if request.path == "/healthcheck":
            return flower.get_handler_delegate(request, Healthcheck)
        if not is_known(request.host_name):
            return flower.get_handler_delegate(request, UnknownHost)
        return find_handler(flower, request, **more)

    def set_guarded(handler: BaseHandler) -> None:
        set_headers(handler)
        handler.set_header("Content-Security-Policy", POLICY)
        handler.set_header("X-Frame-Options", "DENY")

    Flower.find_handler, BaseHandler.set_default_headers = find_guarded, set_guarded
    Metrics.get = authenticated(Metrics.get)
