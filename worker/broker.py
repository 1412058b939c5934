"""Ways around Celery and kombu: a worker must survive that Redis is killed, and stop when told to while Redis is gone.

When Redis closes the connection under a worker that has unacknowledged messages, kombu closes the channel, tries to put
them back through a connection that it has let go of already, and ends the worker with an ``AttributeError`` (celery
ignores connection errors only). The ledger does not need them back: the sweep sends what vanished again.

Celery's heartbeat is sent again and again until Redis takes it, for ever, and holds the lock that all events need:
under gevent no job could end meanwhile, and no worker stop. An event that is not sent is kept and sent with the next
connection anyway.

A prefork child that dies in the moment in which the connection breaks is noted as ended and not replaced yet when the
worker connects anew; celery then watches a file descriptor that is ``None``, and ends with a ``ValueError``.

Kept true by ``tests/fault/test_redis_faults.py`` and ``tests/fault/test_stop_without_redis.py``.
"""

from __future__ import annotations

import logging
from typing import Any

from celery.app.events import Events
from celery.concurrency import asynpool, prefork
from celery.events.dispatcher import EventDispatcher
from celery.worker import pidbox
from kombu.transport import redis

from ledger.connection import AWAY
from worker import drain

log = logging.getLogger("downpour.worker")


class ForgetfulQoS(redis.QoS):  # type: ignore[misc]
    _unheard = False  # the last acknowledgement failed

    def ack(self, delivery_tag: str) -> None:
        if self._unheard and drain.draining():  # nobody waits for each message in turn only to hear the same again
            return
        try:
            super().ack(delivery_tag)
        except AWAY as error:
            if not self._unheard:
                log.warning("messages are not acknowledged while Redis is away, the ledger knows of them: %s", error)
            self._unheard = True
        else:
            self._unheard = False

    def restore_unacked(self, client: Any = None) -> Any:
        if self.channel.connection.client is None:  # closed already: nothing to put them back through
            self._delivered.clear()
            return None
        return super().restore_unacked(client)


class PromptDispatcher(EventDispatcher):  # type: ignore[misc]
    def send(self, type: str, *args: Any, retry: bool = False, **fields: Any) -> Any:  # noqa: ARG002 - Celery's
        return super().send(type, *args, retry=False, **fields)


class PromptEvents(Events):  # type: ignore[misc]
    """For ``Celery(events=...)``."""

    dispatcher_cls = PromptDispatcher


class CalmPidbox(pidbox.gPidbox):  # type: ignore[misc]
    """Remote control under gevent, in a greenlet of its own that is begun anew with each connection."""

    def loop(self, c: Any) -> None:
        try:
            super().loop(c)
        except c.connection_errors as error:
            log.warning("no remote control until Redis is back: %s", error)
        except SystemExit:  # told to stop while it connected; whoever runs the jobs was told too, and lets them end
            log.debug("no remote control any more")


class SturdyPool(asynpool.AsynPool):  # type: ignore[misc]
    def _track_child_process(self, proc: Any, hub: Any) -> None:
        if getattr(proc, "_sentinel_poll", proc) is None:  # its end was seen: it is to be replaced, not to be watched
            hub.call_soon(self.maintain_pool)
        else:
            super()._track_child_process(proc, hub)


def survive_a_closed_connection() -> None:
    """Before any connection to the broker is made."""
    redis.Channel.QoS = ForgetfulQoS
    pidbox.gPidbox = CalmPidbox
    prefork.TaskPool.Pool = SturdyPool
