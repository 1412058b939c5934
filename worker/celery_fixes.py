"""What Celery and kombu lack: a worker survives that Redis is killed, stops while Redis is gone, and sends events fast.

* ``UnackedInMemory``: kombu notes in Redis which messages a worker has in hand: two transactions per message, a quarter
  of what a small job costs, and nothing works while they cannot be written. The ledger knows it already
  (``worker.heartbeat`` touches them every second), and the sweep sends again what vanished. It also ends an
  ``AttributeError`` of kombu's, which ended a worker whose connection Redis had closed.
* ``WritingChannel``: a Redis that answers and refuses (a failover, a full disk, a long script) is away, too: see
  ``ledger.redis_client``. kombu connects to it all the same and fails with its first write, at once and again.
* ``PromptDispatcher``: Celery's heartbeat is sent again and again until Redis takes it, for ever, and holds the lock
  that all events need: under gevent no job could end meanwhile, and no worker stop. An event that is not sent is kept
  and sent with the next connection anyway.
* ``EventBatches``: Celery sends each event of a task by itself, three per task, unless its loop runs (prefork), and
  there it sends what one turn of the loop brought. For small jobs that was a third of the worker's time.
* ``stop_alike``: Celery keeps running jobs for ever after SIGTERM, SIGINT and SIGHUP, and kills or fails to kill them
  (threads) after SIGQUIT or a second SIGINT. Here each of them is a stop with the grace of ``worker.drain``.
* ``SturdyPool``: a prefork child that dies in the moment in which the connection breaks is noted as ended and not
  replaced yet when the worker connects again; celery then watches a file descriptor that is ``None``, and ends with a
  ``ValueError``. One that is killed while the worker starts ends it, too: with "Could not start worker processes"
  before its first turn of the loop, and with a ``StopIteration`` if Redis goes away meanwhile, because the pipes of
  the dead child are not free yet. And every second child that was killed was missed for up to 5 s.

Kept true by ``tests/fault/test_redis_faults.py``, and there ``test_redis_refuses.py``, ``test_stop_without_redis.py``
``test_killed_workers.py`` and ``test_ways_to_stop.py``.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar

from billiard.common import _shutdown_cleanup
from celery import bootsteps
from celery.app.events import Events
from celery.apps import worker as apps_worker
from celery.concurrency import asynpool, prefork
from celery.events.dispatcher import EventDispatcher
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import pidbox
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from celery.worker.consumer.events import Events as EventsStep
from celery.worker.state import maybe_shutdown
from kombu.exceptions import KombuError
from kombu.pidbox import Mailbox, Node
from kombu.transport import redis, virtual

from ledger.redis_client import AWAY, RedisFullError
from worker import drain

log = logging.getLogger("downpour.worker")

_QUIET = 5.0  # times as long as it took to find out that an event cannot be sent
_LONGEST_QUIET = 30.0  # seconds
_BATCH_DELAY = 0.01  # seconds
_BATCH = 200  # events at once
_AGAIN = 1.0  # seconds until remote control connects again
_DYING = 0.001  # seconds between two looks at a child that has closed its files
_HEARD = 0.1  # seconds until a parent has heard a signal that its child has heard, too


class UnackedInMemory(virtual.QoS):  # type: ignore[misc]
    def restore_unacked(self) -> None:
        """Put what was not begun back on its queue, in front, the oldest first. What cannot be, the sweep sends."""
        self._flush()
        if self.channel.connection.client is not None:  # else closed: nothing to put them back through
            try:
                with self.channel.conn_or_acquire() as client:
                    for message in reversed(self._delivered.values()):
                        info = message.delivery_info
                        self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], client)
            except AWAY as error:
                log.warning("messages are not put back while Redis is away, the ledger knows of them: %s", error)
        self._delivered.clear()


class PatientConsumer(Consumer):  # type: ignore[misc]
    """For ``worker_consumer``: says once that it waits for Redis, and asks at least every two seconds.

    It starts without gossip and mingle, a second sooner: what workers would tell each other there is in the ledger.
    It also knows of the messages that a rate limit holds back: Celery forgets them when the limit changes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"without_gossip": True, "without_mingle": True})
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # one per lost connection, of a setting

    def ensure_connected(self, conn: Any) -> Any:
        said = ""

        def say(error: Exception, _interval: float) -> None:
            nonlocal said
            if str(error) != said:
                log.warning("waits for Redis: %s", error)
            said = str(error)

        conn.ensure_connection(say, None, 0.5, 0.5, 2.0, callback=maybe_shutdown)
        self.first_connection_attempt = False
        return conn

    def reset_rate_limits(self) -> None:
        """A new limit holds at once also for what the one before holds back; Celery lets that wait for the old one."""
        before = self._limited()
        super().reset_rate_limits()
        for bucket in before:
            while bucket.contents:
                request, tokens = bucket.pop()
                if new := self.task_buckets[request.name]:
                    self.call_soon(self._limit_task, request, new, tokens)
                else:
                    self.call_soon(self._limit_move_to_pool, request)

    def in_hand(self) -> list[str]:
        """Ids of the messages that this worker has taken off its queue."""
        held_back = [request.id for bucket in self._limited() for request, _ in tuple(bucket.contents)]
        return [*worker_state.requests, *held_back]

    def _limited(self) -> list[Any]:
        return [bucket for bucket in self.task_buckets.values() if bucket]


class WritingChannel(redis.Channel):  # type: ignore[misc]
    """The base of ``worker.transport.Channel``: connected only when Redis takes writes, so that all wait for it."""

    _kept: Any = None  # client for commands

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        try:
            self.client.hdel("nothing", "nothing")  # a write that needs no memory
        except Exception:
            self.close()
            raise

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """kombu makes a client for each command, with its 170 callbacks."""
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = self._create_client()
        yield client or self._kept

    @property
    def pool(self) -> Any:
        """Of connections: kombu has two per channel, and one that is idle for ever in one of them."""
        return self.async_pool

    def _queue_bind(self, *args: Any) -> None:
        with suppress(RedisFullError):  # it is bound already, and only consuming makes room
            super()._queue_bind(*args)

    def _delete(self, *args: Any, **options: Any) -> None:
        with suppress(*AWAY):  # by a channel that is closed, which must not stop half-way; the name is used again
            super()._delete(*args, **options)


class AnswerOnce(Node):  # type: ignore[misc]
    """Remote control: an answer that cannot be given is not tried again, for ever, by the loop that consumes."""

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        mailbox, once = self.mailbox, {"max_retries": 0}
        try:
            mailbox._publish_reply(
                data, exchange, routing_key, ticket, self.channel, serializer=mailbox.serializer, retry_policy=once
            )
        except (*AWAY, KombuError, OSError) as error:
            log.warning("remote control: no answer while Redis is away: %s", error)


class PromptDispatcher(EventDispatcher):  # type: ignore[misc]
    """Waits in vain once: where an event could not be sent for seconds, the next ones are kept without a try.

    Each one that ends in a worker's stop would wait as long, and a Redis that is frozen answers none of them. A new
    connection has a new dispatcher.
    """

    _quiet_until = 0.0  # by time.monotonic()

    def _publish(self, event: Any, producer: Any, routing_key: str, **more: Any) -> None:
        begun, kept = time.monotonic(), len(self._outbound_buffer)
        if begun < self._quiet_until:
            self._outbound_buffer.append((event, routing_key))
            return
        super()._publish(event, producer, routing_key, **more)
        if len(self._outbound_buffer) > kept:
            now = time.monotonic()
            self._quiet_until = now + min(_LONGEST_QUIET, _QUIET * (now - begun))

    def extend_buffer(self, other: EventDispatcher) -> None:
        """What the dispatcher before holds back, and what threads still give to it, leaves by this connection."""
        super().extend_buffer(other)
        self._group_buffer = other._group_buffer

    def send(self, type: str, *args: Any, retry: bool = False, **fields: Any) -> Any:  # noqa: ARG002 - Celery's
        return super().send(type, *args, retry=False, **fields)


class PromptEvents(Events):  # type: ignore[misc]
    """For ``Celery(events=...)``: the tasks of a process share a dispatcher. Celery makes one, and a channel, for each
    event that a running task sends, which takes thirty times as long."""

    dispatcher_cls = PromptDispatcher

    def __init__(self, app: Any = None) -> None:
        super().__init__(app)
        self.shared: tuple[int, Any] = (0, None)  # pid, and the dispatcher; the consumer's where tasks run beside it

    @contextmanager
    def default_dispatcher(self, hostname: str | None = None, **_: Any) -> Iterator[Any]:
        if self.shared[0] != os.getpid():
            own = self.Dispatcher(self.app.connection_for_write(), hostname, buffer_while_offline=False)
            self.shared = os.getpid(), own
        yield self.shared[1]


class EventBatches(bootsteps.StartStopStep):  # type: ignore[misc]
    """A step of Celery's consumer, started with each connection: one PUBLISH for the events of a hundredth of a second.

    Flower reads batches as it reads events.
    """

    requires = (EventsStep,)

    def start(self, consumer: Any) -> None:
        dispatcher, due = consumer.event_dispatcher, False

        def later() -> None:
            nonlocal due
            if not due:  # two threads that both see this send a batch in two parts: no harm
                due = True
                consumer.timer.call_after(_BATCH_DELAY, flush)

        def flush() -> None:
            nonlocal due
            due = False
            dispatcher.flush()

        consumer.app.events.shared = os.getpid(), dispatcher
        dispatcher.buffer_group = frozenset({"task"})
        dispatcher.buffer_limit = _BATCH
        dispatcher.on_send_buffered = later

    def stop(self, consumer: Any) -> None:
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.flush()

    def shutdown(self, consumer: Any) -> None:
        """After the pool has ended: the timer is gone. An event of a task makes Flower take its worker for alive, so
        what Celery has said before is said again, at the very end, and that nothing runs."""
        self.stop(consumer)
        if consumer.event_dispatcher is not None:
            consumer.event_dispatcher.send("worker-offline", active=0)


class CalmPidbox(pidbox.gPidbox):  # type: ignore[misc]
    """Remote control under gevent, in a greenlet and with a connection of its own."""

    def loop(self, c: Any) -> None:
        mine = self._node_shutdown
        while self._node_shutdown is mine:  # else it was stopped, and perhaps started anew, by the worker's own loop
            try:
                super().loop(c)
                return
            except c.connection_errors as error:
                mine = self._node_shutdown
                log.warning("no remote control until Redis is back: %s", error)
                time.sleep(_AGAIN)
            except SystemExit as end:  # a remote shutdown; or told to stop while it connected
                if worker_state.should_stop is None:  # the worker's own loop stops in order, and lets the jobs end
                    worker_state.should_stop = end.code
                return


class SturdyChild(asynpool.Worker):  # type: ignore[misc]
    def after_fork(self) -> None:
        super().after_fork()
        for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, self._told)

    def _told(self, number: int, frame: Any) -> None:
        """A signal to the whole process group, as systemd sends it, is the parent's; one from the parent ends it."""
        time.sleep(_HEARD)
        if not drain.stopping():
            _shutdown_cleanup(number, frame)


class SturdyPool(asynpool.AsynPool):  # type: ignore[misc]
    Worker = SturdyChild
    started: ClassVar[set[int]] = set()  # process ids of all children whose end was not told to the ledger

    def _create_worker_process(self, i: int) -> Any:
        child = super()._create_worker_process(i)
        self.started.add(child.pid)
        return child

    def living(self) -> list[int]:
        """Process ids; a child that was waited for is taken off billiard's list."""
        return [child.pid for child in tuple(self._pool)]

    def did_start_ok(self) -> bool:
        """A child that was killed before the loop began is replaced; one that ended by itself cannot start."""
        started = all(child.exitcode is None or child.exitcode < 0 for child in self._pool)
        self.maintain_pool()
        return started

    def maintain_pool(self) -> None:
        if self._registered_with_event_loop:  # else what a dead child leaves is not cleared away: it waits in the pool
            super().maintain_pool()

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        if getattr(proc, "_sentinel_poll", proc) is None:  # its end was seen: it is to be replaced, not to be watched
            hub.call_soon(self.maintain_pool)
        else:
            super()._track_child_process(proc, hub)

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        """A child that cannot be waited for yet stays watched: Celery would miss it until its next look, 5 s later.

        Its files are closed a moment before it is a zombie; or the event is one of a file that had the same number.
        """
        if proc.exitcode is None:
            time.sleep(_DYING)
        else:
            super()._event_process_exit(hub, proc)


def _restart() -> None:
    """Celery's own way would not start again what was started as ``python -m celery``."""
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - as it was started


def stop_alike() -> None:
    """After SIGHUP the worker starts again in place, with its process id, unless it was told to stop, too."""

    def begin_restart(_worker: Any) -> None:
        if not drain.stopping():
            atexit.register(_restart)

    def end_restart(_worker: Any) -> None:
        atexit.unregister(_restart)

    for kind, name in {"term": "SIGTERM", "term_hard": "SIGQUIT", "int": "SIGINT", "restart": "SIGHUP"}.items():
        callback = begin_restart if kind == "restart" else end_restart
        handler = partial(apps_worker._shutdown_handler, sig=name, callback=callback)
        setattr(apps_worker, f"install_worker_{kind}_handler", handler)


def apply() -> None:
    """Before any connection to the broker is made. The first goes with the transport option ``ack_emulation`` off."""
    virtual.QoS = UnackedInMemory
    pidbox.gPidbox = CalmPidbox
    Mailbox.node_cls = AnswerOnce
    prefork.TaskPool.Pool = SturdyPool
    stop_alike()
