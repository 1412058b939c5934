"""A project's Celery app, pointed to the private broker before its first connection, and the proof that it is.

``CELERY_BROKER_URL`` alone is not enough: a project's ``broker_write_url`` and ``broker_read_url`` come before it.
So every address is set, in the environment and in the configuration, and then what the app would really use is read.
"""

from __future__ import annotations

import os
import threading
from typing import Any

_BROKER = ("broker_url", "broker_read_url", "broker_write_url")
# They belong to the project's own broker or result store, and would change or break an address of ours.
_OF_ITS_OWN = (
    "broker_use_ssl", "broker_transport", "broker_user", "broker_password", "broker_vhost", "broker_port",
    "broker_login_method", "redis_backend_use_ssl", "redis_username", "redis_password", "redis_db", "redis_host",
    "redis_port",
)  # fmt: skip


def has_results(app: Any) -> bool:
    """Whether its tasks store results."""
    return (app.conf.result_backend or "disabled") not in ("disabled", "disabled://")


def point(app: Any, broker: str, results: str) -> None:
    """Args: results is empty for a project that stores none."""
    conf = app.conf
    kept = str(conf.broker_url or "").startswith("redis")  # options of another transport mean nothing to ours
    options = dict(conf.broker_transport_options or {}) if kept else {}
    for name in ("username", "password", "credential_provider"):
        options.pop(name, None)
    conf.update(dict.fromkeys(_BROKER, broker))
    conf.update(dict.fromkeys(_OF_ITS_OWN))
    conf.update(broker_transport_options=options, task_always_eager=False, broker_connection_retry_on_startup=True)
    os.environ.update({f"CELERY_{name.upper()}": broker for name in _BROKER})
    if results:
        conf.update(result_backend=results, result_backend_transport_options={})
        os.environ["CELERY_RESULT_BACKEND"] = results
    # What was made already has the old addresses.
    app._pool = app.amqp._producer_pool = app._backend_cache = None
    app._local = threading.local()


def strangers(app: Any, broker: str, results: str) -> list[str]:
    """The addresses that the app would use and that are not the private ones; opens no connection."""
    expected = results or "disabled://"
    backends = [("result store", app.backend)] + [
        (f"result store of {name}", task._backend)
        for name, task in app.tasks.items()
        if getattr(task, "_backend", None) is not None
    ]
    used = [
        ("broker for writing", app.connection_for_write(), broker),
        ("broker for reading", app.connection_for_read(), broker),
        *((what, backend, expected) for what, backend in backends),
    ]
    return [f"{what} is {each.as_uri()}" for what, each, wanted in used if not is_at(each, wanted)]


def is_at(used: Any, address: str) -> bool:
    """Whether a connection, or a result store, leads there."""
    return str(used.as_uri(include_password=True)).rstrip("/") == address.rstrip("/")
