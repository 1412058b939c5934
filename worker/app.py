"""The Celery app of every worker.

    celery -A worker.app worker -P threads -Q downloads.threads -n threads@%h -c 8 -E

The pool is on the command line and nowhere else. Each setting stands with its why.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from typing import Any

from celery import Celery, signals
from celery.app import trace
from celery.exceptions import SecurityWarning
from celery.worker import state as worker_state
from celery.worker.control import Panel
from kombu.utils.functional import maybe_list
from redis.exceptions import RedisError

from download.threads import native
from ledger.jobs import JobState, Pool, Ref, job_id
from ledger.ledger import Ledger
from ledger.messages import broker_options
from ledger.redis_client import PerProcess, connect, eviction_policy, eviction_warning, once
from ledger.settings import settings_of
from ledger.switches import Switches
from poolbench.tasks.lateness import keep_probing
from worker import celery_fixes, drain, transport
from worker.files import CLEAN_UP_EVERY, clean_up
from worker.heartbeat import keep_watching_children, leases_of, repeat
from worker.machine import MachineHealth, allow_descriptors
from worker.pools import CommandLine
from worker.process import network, prepare_children, settle_memory, this_worker

celery_fixes.apply()
transport.check_what_arrives()
settings = settings_of("worker")
log = logging.getLogger("downpour.worker")
_machine = MachineHealth(settings)
logging.getLogger("celery.app.trace").setLevel(logging.WARNING)  # that a job is over, and how, our own line says
trace.LOG_RECEIVED = "Task %(name)s[%(id)s] received: %(kwargs)r"  # which file it is for
warnings.filterwarnings("ignore", category=SecurityWarning)  # seven lines for root; no message here can carry code

app = Celery("downpour", include=["worker.tasks"], events=celery_fixes.PromptEvents)
app.conf.update(
    broker_options(settings),
    worker_consumer="worker.celery_fixes:PatientConsumer",
    task_ignore_result=True,  # the ledger has the results; a result back end would block for 19 s when Redis is away
    # Acknowledged before it runs: what is unfinished is known by the ledger. Late acknowledgement repeats jobs that
    # outlast the visibility timeout, and starves gevent.
    task_acks_late=False,
    worker_prefetch_multiplier=1,  # no short job waits behind a long one in a worker's hands
    broker_connection_retry_on_startup=True,  # Redis may come up later than we do
    broker_connection_max_retries=None,  # ... or be away for long
    worker_cancel_long_running_tasks_on_connection_loss=False,  # a running download does not need Redis
    worker_send_task_events=True,  # Flower's eyes; worker_send_task_events=off instead of -E closes them
    task_send_sent_event=False,  # one more command per message, and the ledger knows when a job was queued
    worker_hijack_root_logger=True,
    worker_log_format="%(asctime)s %(levelname)s %(processName)s: %(message)s",
    worker_task_log_format="%(asctime)s %(levelname)s %(processName)s: %(message)s",
    worker_redirect_stdouts=False,
    worker_proc_alive_timeout=30.0,  # a child of prefork imports everything anew on a loaded machine
    enable_utc=True,
)
app.steps["consumer"].add(celery_fixes.EventBatches)


@signals.celeryd_after_setup.connect
def _check_command_line(instance: Any, **_: Any) -> None:
    try:
        line = CommandLine.of(instance)
        line.check()
        network()
    except ValueError as error:
        print(f"worker: {error}", file=sys.stderr)  # noqa: T201 - before any log is set up
        raise SystemExit(2) from error
    pool = line.pool
    for doubt in line.doubts():
        log.warning("command line: %s", doubt)
    slots = max(instance.autoscale) if instance.autoscale else instance.concurrency
    if few := allow_descriptors(slots, settings.chunk_parallel):
        log.warning("open files: %s", few)
    this_worker.name, this_worker.pool = instance.hostname, pool
    this_worker.slots = 1 if pool is Pool.PREFORK else slots
    with contextlib.suppress(RedisError, OSError):  # away: then it is heard of once the worker is in service
        with connect(settings, connections=1) as redis:
            if policy := eviction_policy(redis):
                log.warning(eviction_warning(policy))
            may_take = Switches(Ledger(redis, settings.key_prefix)).may_take(pool, this_worker.name)
        if not may_take:
            log.warning("begins without its queue: %s is paused, or this worker drained", pool)
            instance.app.amqp.queues.deselect(pool.queue)
    instance.quiet = True  # no banner of twenty lines: the log begins with what happens
    # Goes with every heartbeat; Flower's pages of workers and lanes show it.
    worker_state.SOFTWARE_INFO.update(family=this_worker.family, slots=slots, pool=pool)
    if pool is Pool.PREFORK:
        prepare_children()


@signals.worker_ready.connect
def _in_service(sender: Any, **_: Any) -> None:
    worker, pool = this_worker.name, this_worker.pool
    assert pool is not None  # noqa: S101 - set above, before any worker is ready
    leases = PerProcess(lambda: leases_of(settings))  # of the thread that uses it; so with the next two

    def touch() -> None:
        """Tell the ledger which messages this worker has in hand; hear whether it may take more."""
        may, _machine.noted = leases().touch(pool, sender.in_hand(), worker)
        drain.consume(sender, pool.queue, may=may and _machine.fault is None)

    def rest() -> None:
        """Half as often without messages; the first that comes is told within a second."""
        native("time", "sleep")(settings.renew_every)
        if not sender.in_hand():
            native("time", "sleep")(settings.renew_every)

    repeat("messages in hand", settings.renew_every, touch, rest=rest)
    switches = PerProcess(lambda: Switches(_own_ledger()))
    repeat("machine", settings.renew_every, lambda: _machine.look(switches(), worker, time.monotonic()))

    def clear() -> None:
        ledger = _own_ledger()
        with ledger.redis:  # closed until the next time
            clean_up(settings.downloads, ledger, settings.keep_partials)

    repeat("clean up", CLEAN_UP_EVERY, clear)
    if this_worker.pool is not Pool.PREFORK:
        _warm_up()
    else:  # there the children run the jobs
        settle_memory()
        children: celery_fixes.SturdyPool = sender.pool._pool
        keep_watching_children(settings, this_worker.family, children.started, children.living)


def _own_ledger() -> Ledger:
    return Ledger(connect(settings, connections=1), settings.key_prefix)


@signals.worker_process_init.connect
def _warm_up(**_: Any) -> None:
    with contextlib.suppress(RedisError, OSError), once():  # away: then the first job does it
        this_worker.warm_up()
    if settings.lateness:  # set by a comparison, for the workers that it starts itself
        keep_probing(settings.lateness)


@signals.heartbeat_sent.connect
def _alive(**_: Any) -> None:
    if settings.health_file and _machine.fault is None:
        settings.health_file.touch()


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    drain.start(settings.grace)


@signals.task_revoked.connect
def _cancel(request: Any, **_: Any) -> None:
    """Celery's revoke, from Flower or a shell, means a cancel here; otherwise the sweep would send the job again."""
    with contextlib.suppress(RedisError, ValueError):
        this_worker.ledger().cancel(Ref.parse(request.id))


_revoke = Panel.data["revoke"]


def _cancel_queued(state: Any, task_id: Any, **more: Any) -> Any:
    """Celery drops a revoked message when it comes to it; one that is taken off the queue with others never does."""
    for text in maybe_list(task_id) or ():
        with contextlib.suppress(RedisError, ValueError), once():
            ref = Ref.parse(text)
            records = list(this_worker.ledger().read([job_id(ref.batch, ref.first)])) if ref.first == ref.last else []
            if [record.state for record in records] == [JobState.QUEUED]:
                this_worker.ledger().cancel(ref)
    return _revoke(state, task_id, **more)


_shutdown = Panel.data["shutdown"]


def _stop(state: Any, **more: Any) -> Any:
    """Celery sends no signal of a remote shutdown, e.g. by Flower's button."""
    drain.start(settings.grace)
    return _shutdown(state, **more)


def _refuse(_state: Any, queue: Any = None, **_: Any) -> dict[str, str]:
    """Celery's add_consumer would run another pool's jobs, and its cancel_consumer be undone within a second."""
    pool = this_worker.pool
    return {
        "error": f"a {pool} worker serves {pool and pool.queue} and no other queue; got {str(queue)[:80]!r}. "
        f"`producer pause {pool}` or `producer drain {this_worker.name}` stops that, resume or undrain begins it again"
    }


Panel.data.update(revoke=_cancel_queued, shutdown=_stop, add_consumer=_refuse, cancel_consumer=_refuse)


@signals.worker_process_shutdown.connect
def _child_gone(**_: Any) -> None:
    this_worker.end()


@signals.worker_shutdown.connect
def _gone(**_: Any) -> None:
    this_worker.end()
    if settings.health_file:
        settings.health_file.unlink(missing_ok=True)
