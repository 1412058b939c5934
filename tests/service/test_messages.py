"""Our messages are Celery's: what a worker makes of one is what it makes of a message that Celery sent."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.worker.request import Request
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from ledger.jobs import TASK_NAME, Job, Message, Pool, Ref
from ledger.ledger import Ledger
from ledger.messages import Envelope, Publisher, Texts, broker_options, label, read
from ledger.redis_client import connect
from ledger.settings import Settings

LABELS = ["f.bin from a.example", 'a "b" \\ ü\u2028 from x', "", "x" * 2000]


@pytest.fixture
def app(settings: Settings) -> Celery:
    app = Celery("downpour", set_as_current=False)
    app.conf.update(broker_options(settings), task_ignore_result=True)

    @app.task(name=TASK_NAME, shared=False)
    def download(ref: str) -> str:
        return ref

    app.finalize()
    return app


def by_celery(app: Celery, envelope: Envelope) -> None:
    message = app.amqp.as_task_v2(
        envelope.ref,
        TASK_NAME,
        args=(envelope.ref,),
        argsrepr="",
        kwargsrepr=envelope.label,
        shadow=f"download ({envelope.pool})",
        ignore_result=True,
    )
    with app.producer_pool.acquire(block=True) as producer:
        app.amqp.send_task_message(producer, TASK_NAME, message, declare=[], queue=envelope.pool.queue)


def by_us(settings: Settings, envelope: Envelope) -> None:
    ref = Ref.parse(envelope.ref)
    jobs = tuple(Job(f"http://a/{n}", str(n)) for n in ref.ordinals)
    Ledger(connect(settings), settings.key_prefix).submit([Message(ref, envelope.pool, jobs)])
    Publisher(settings).send([envelope])


def taken(app: Celery, pool: Pool) -> Any:
    """The message as kombu gives it to a worker."""
    with Connection(app.conf.broker_url, transport_options=app.conf.broker_transport_options) as connection:
        message = connection.SimpleQueue(pool.queue).get(timeout=5)
        message.ack()
        return message


def seen(app: Celery, message: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What worker, events and Flower read of a request, and what the task's own context says."""
    request = Request(message, app=app, hostname="w@h", task=app.tasks[TASK_NAME])
    names = (
        "id name type args kwargs argsrepr kwargsrepr eta expires utc time_limits delivery_info reply_to "
        "store_errors ignore_result content_type content_encoding group group_index stamps stamped_headers"
    )
    context: Context = request._context
    fields = "id args kwargs callbacks errbacks chain chord delivery_info eta expires group retries shadow stamps"
    return {name: _said(getattr(request, name)) for name in names.split()}, {
        name: _said(getattr(context, name)) for name in fields.split()
    }


def _said(value: Any) -> Any:
    """Nothing can be said in several ways."""
    value = tuple(value) if isinstance(value, list) else value
    return None if value in ((None, None), "", {}, ()) else value


@pytest.mark.parametrize("pool", list(Pool))
@pytest.mark.parametrize("ref", ["b.0", "20261122-120000-abcdef.7-56"])
@pytest.mark.parametrize("label", LABELS)
def test_a_worker_sees_in_our_message_what_it_sees_in_celerys(
    app: Celery, settings: Settings, pool: Pool, ref: str, label: str
) -> None:
    envelope = Envelope(ref, pool, label)
    by_celery(app, envelope)
    celerys = taken(app, pool)
    by_us(settings, envelope)
    ours = taken(app, pool)
    assert seen(app, ours) == seen(app, celerys)
    # And nothing of ours says anything else than Celery's own.
    assert ours.headers.items() <= celerys.headers.items()
    assert ours.delivery_tag != celerys.delivery_tag


@pytest.mark.parametrize("pool", list(Pool))
@pytest.mark.parametrize("label", LABELS)
def test_what_we_send_and_what_celery_sends_is_read_back_as_it_was_meant(
    app: Celery, settings: Settings, pool: Pool, label: str
) -> None:
    """An older Downpour sent its messages through Celery."""
    envelope = Envelope("b.7-56", pool, label)
    by_celery(app, envelope)
    by_us(settings, envelope)
    with connect(settings) as redis:
        elements = redis.lrange(f"{settings.key_prefix}{pool.queue}", 0, -1)
    assert [read(element.encode(), pool) for element in elements] == [envelope, envelope]


@pytest.mark.parametrize("by_whom", ["us", "celery"])
def test_a_message_that_a_stopping_worker_put_back_is_still_a_message(
    app: Celery, settings: Settings, by_whom: str
) -> None:
    envelope = Envelope("b.7", Pool.PREFORK, "f.bin from a.example")
    if by_whom == "us":
        by_us(settings, envelope)
    else:
        by_celery(app, envelope)
    with Connection(app.conf.broker_url, transport_options=app.conf.broker_transport_options) as connection:
        connection.SimpleQueue(Pool.PREFORK.queue).get(timeout=5).requeue()
    with connect(settings) as redis:
        (element,) = redis.lrange(f"{settings.key_prefix}{Pool.PREFORK.queue}", 0, -1)
    assert read(element.encode(), Pool.PREFORK) == envelope


@given(st.text(st.characters(), max_size=50), st.sampled_from(["a.example", "\ud800", "😀", "ü"]), st.integers(1, 8000))
def test_a_message_about_any_job_is_one_that_can_be_read(name: str, host: str, times: int) -> None:
    """Otherwise it would be a dead letter and be sent again, for ever."""
    job = Job(f"http://{host * times}", name * times)
    envelope = Envelope("b.0-499", Pool.THREADS, label(job, 499))
    assert read(Texts().of(envelope).encode(), Pool.THREADS) == envelope


def test_a_message_that_nobody_waits_for_any_more_is_not_sent(settings: Settings) -> None:
    ledger, publisher = Ledger(connect(settings), settings.key_prefix), Publisher(settings)
    ledger.submit([Message(Ref("b", n, n), Pool.THREADS, (Job(f"http://a/{n}", "x"),)) for n in range(3)])
    ledger.cancel(Ref("b", 1, 1))
    publisher.send(Envelope(f"b.{n}", Pool.THREADS, "x") for n in range(3))
    publisher.send([Envelope("b.2", Pool.THREADS, "a duplicate")])
    texts = ledger.redis.lrange(ledger.keys.queue(Pool.THREADS), 0, -1)
    assert [json.loads(text)["headers"]["id"] for text in reversed(texts)] == ["b.0", "b.2"]
    assert len({json.loads(text)["properties"]["delivery_tag"] for text in texts}) == 2
