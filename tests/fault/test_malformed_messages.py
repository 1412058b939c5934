"""Elements of a queue, and broadcasts, that are no message of Downpour: no worker ends or waits because of one.

All elements of a table go to one worker at once. It takes them in order, so a failure names the first that it did not
get past.
"""

from __future__ import annotations

import base64
import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from functools import reduce
from operator import getitem
from typing import Any

import pytest

from ledger.dead_letters import DeadLetter, DeadLetters
from ledger.jobs import Message as Jobs
from ledger.jobs import Pool, Ref
from ledger.messages import Envelope, Texts
from tests.fault.given import all_done
from tests.waiting import wait_for
from tests.worker_process import Service
from tests.world import World

pytestmark = pytest.mark.timeout(120)

Message = dict[str, Any]
Change = Callable[[Message], Any]  # of a good message

TEN_YEARS = "2036-12-01T00:00:00+00:00"
GOOD_BODY = '[["b.0"],{},{}]'


def good(pool: Pool, ref: str = "b.0") -> Message:
    return dict(json.loads(Texts().of(Envelope(ref, pool, "f.bin from a.example"))))


def at(path: str, change: Callable[[Message, str], object]) -> Change:
    """A good message that was changed at a place like ``headers.id``."""
    *parents, last = path.split(".")

    def changed(message: Message) -> Message:
        change(reduce(getitem, parents, message), last)
        return message

    return changed


def put(path: str, value: Any) -> Change:
    return at(path, lambda parent, name: parent.update({name: value}))


def drop(path: str) -> Change:
    return at(path, lambda parent, name: parent.pop(name))


def body(value: Any) -> Change:
    return put("body", value if isinstance(value, str) else json.dumps(value))


def in_base64(text: bytes | str) -> Change:
    """A good message whose body is this, or these bytes, in base64."""

    def changed(message: Message) -> Message:
        plain = text if isinstance(text, bytes) else text.encode()
        message["body"] = base64.b64encode(plain).decode()
        message["properties"]["body_encoding"] = "base64"
        return message

    return changed


def ref(text: Any) -> Change:
    """A good message for another ref."""

    def changed(message: Message) -> Message:
        message["body"], message["headers"]["id"] = json.dumps([[text], {}, {}]), text
        return message

    return changed


def text(change: Callable[[str], bytes | str]) -> Change:
    """What becomes of the text of a good message."""
    return lambda message: change(json.dumps(message))


def element(made_of: bytes | str | Change, pool: Pool) -> bytes:
    made = made_of(good(pool)) if callable(made_of) else made_of
    if isinstance(made, dict):
        made = json.dumps(made)
    return made.encode() if isinstance(made, str) else made


def protocol_1(message: Message) -> Message:
    content = json.dumps({"task": "downpour.download", "id": "b.0", "args": ["b.0"], "kwargs": {}, "retries": 0})
    return message | {"headers": {}, "body": content}


TYPED = {"__type__": "uuid", "__value__": "no uuid"}  # kombu makes objects of such, or fails to

# name: (element, a part of the reason that is kept with it)
DEAD: dict[str, tuple[bytes | str | Change, str]] = {
    # Not JSON.
    "a sentence": ("hello, queue", "JSON"),
    "nothing": ("", "JSON"),
    "blanks": ("   \n", "JSON"),
    "NUL bytes": (b"\0" * 100, "JSON"),
    "invalid UTF-8": (b"\xff\xfe\x00garbage", "JSON"),
    "invalid UTF-8 inside": (text(lambda good: good.encode().replace(b"f.bin", b"f\xff\xc0.bin")), "JSON"),
    "a surrogate as UTF-8": (text(lambda good: good.encode().replace(b"f.bin", b"\xed\xa0\x80")), "JSON"),
    "UTF-16": (text(lambda good: good.encode("utf-16")), "JSON"),
    "a byte order mark": (text(lambda good: b"\xef\xbb\xbf" + good.encode()), "JSON"),
    "pickle": (pickle.dumps({"task": "downpour.download"}), "JSON"),
    "YAML that runs a command": ("!!python/object/apply:os.system ['true']", "JSON"),
    "MessagePack": (b"\x82\xa4body\xa0\xa7headers\x80", "JSON"),
    "gzip": (text(lambda good: gzip.compress(good.encode())), "JSON"),
    "cut off": (text(lambda good: good[:-1]), "JSON"),
    "one character too many": (text(lambda good: good + "}"), "JSON"),
    "two in one": (text(lambda good: good + good), "JSON"),
    "single quotes": (text(lambda good: good.replace('"', "'")), "JSON"),
    "a control character": (text(lambda good: good.replace("f.bin", "f\n.bin")), "JSON"),
    "nested 100,000 deep": ("[" * 100_000, "65,536"),
    "nested 20,000 deep": ("[" * 20_000, "JSON"),
    "nested 2,000 deep, well-formed": (
        text(lambda good: good[:-1] + ',"pad":' + "[" * 2000 + "]" * 2000 + "}"),
        "JSON",
    ),
    "half a surrogate": (text(lambda good: good.replace("f.bin", "\\ud800")), "JSON"),
    # JSON, and no envelope.
    "a number": ("42", "object"),
    "a string": ('"b.0"', "object"),
    "null": ("null", "object"),
    "true": ("true", "object"),
    "a list": ("[]", "object"),
    "NaN": ("NaN", "object"),
    "a list of a good message": (text(lambda good: f"[{good}]"), "object"),
    "an empty object": ("{}", "required"),
    "the body alone": (GOOD_BODY, "object"),
    "kombu's own type": (json.dumps(TYPED), "required"),
    "headers twice, the last one bad": (text(lambda good: good[:-1] + ',"headers":7}'), "headers"),
    # Keys missing, or of another type.
    "no body": (drop("body"), "body"),
    "body null": (put("body", None), "body"),
    "body a number": (put("body", 7), "body"),
    "body an object": (put("body", {"args": ["b.0"]}), "body"),
    "body empty": (put("body", ""), "body"),
    "no headers": (drop("headers"), "headers"),
    "headers null": (put("headers", None), "headers"),
    "headers a list": (put("headers", []), "headers"),
    "no properties": (drop("properties"), "properties"),
    "properties null": (put("properties", None), "properties"),
    "properties a list": (put("properties", ["x"]), "properties"),
    "no content type": (drop("content-type"), "content-type"),
    "content type a number": (put("content-type", 1), "content-type"),
    "content type text": (put("content-type", "text/plain"), "content-type"),
    "content type YAML": (put("content-type", "application/x-yaml"), "content-type"),
    "no content encoding": (drop("content-encoding"), "content-encoding"),
    "content encoding unknown": (put("content-encoding", "klingon"), "content-encoding"),
    "no delivery tag": (drop("properties.delivery_tag"), "delivery_tag"),
    "delivery tag null": (put("properties.delivery_tag", None), "delivery_tag"),
    "delivery tag a list": (put("properties.delivery_tag", ["t"]), "delivery_tag"),
    "no delivery info": (drop("properties.delivery_info"), "delivery_info"),
    "delivery info null": (put("properties.delivery_info", None), "delivery_info"),
    "no routing key": (drop("properties.delivery_info.routing_key"), "routing_key"),
    "routing key null": (put("properties.delivery_info.routing_key", None), "routing_key"),
    "routing key of no queue": (put("properties.delivery_info.routing_key", "celery"), "routing_key"),
    "exchange a number": (put("properties.delivery_info.exchange", 7), "exchange"),
    "exchange of headers": (put("properties.delivery_info.exchange", {"x-match": "all", "a": 1}), "exchange"),
    "priority a word": (put("properties.priority", "high"), "priority"),
    "priority -1": (put("properties.priority", -1), "priority"),
    "priority 1e400": (text(lambda good: good.replace('"priority": 0', '"priority": 1e400')), "priority"),
    "priority NaN": (put("properties.priority", float("nan")), "priority"),
    "priority of 5,000 digits": (text(lambda good: good.replace('"priority": 0', '"priority": ' + "9" * 5000)), "JSON"),
    # Celery's headers.
    "no task": (drop("headers.task"), "task"),
    "task null": (put("headers.task", None), "task"),
    "task a list": (put("headers.task", ["downpour.download"]), "task"),
    "another task": (put("headers.task", "shop.send_mail"), "task"),
    "no id": (drop("headers.id"), "id"),
    "id null": (put("headers.id", None), "id"),
    "id a number": (put("headers.id", 7), "id"),
    "id a list": (put("headers.id", ["b.0"]), "id"),
    "id of another job": (put("headers.id", "b.1"), "id"),
    "eta in ten years": (put("headers.eta", TEN_YEARS), "eta"),
    "eta no time": (put("headers.eta", "soon"), "eta"),
    "eta a number": (put("headers.eta", 7), "eta"),
    "expires": (put("headers.expires", TEN_YEARS), "expires"),
    "expires no time": (put("headers.expires", [1]), "expires"),
    "retries a word": (put("headers.retries", "many"), "retries"),
    "a retry": (put("headers.retries", 3), "retries"),
    "a time limit": (put("headers.timelimit", [1, 1]), "timelimit"),
    "time limit a word": (put("headers.timelimit", "x"), "timelimit"),
    "a group": (put("headers.group", "g"), "group"),
    "compressed": (put("headers.compression", "application/x-gzip"), "compression"),
    "compressed in an unknown way": (put("headers.compression", "zip-bomb"), "compression"),
    "stamps a number": (put("headers.stamps", 7), "stamps"),
    "stamped": (put("headers.stamped_headers", ["x"]), "stamped_headers"),
    "kwargsrepr an object": (put("headers.kwargsrepr", {}), "kwargsrepr"),
    "protocol 1": (protocol_1, "task"),
    # The body.
    "body no JSON": (body("hello"), "body"),
    "body a string": (body('"b.0"'), "body"),
    "body an object of protocol 1": (body({"args": ["b.0"]}), "body"),
    "body an empty list": (body([]), "body"),
    "body without kwargs": (body([["b.0"]]), "body"),
    "body of four": (body([["b.0"], {}, {}, {}]), "body"),
    "args null": (body([None, {}, {}]), "body"),
    "no args": (body([[], {}, {}]), "body"),
    "two refs": (body([["b.0", "b.1"], {}, {}]), "body"),
    "kwargs": (body([["b.0"], {"text": "b.1"}, {}]), "body"),
    "kwargs a list": (body([["b.0"], [], {}]), "body"),
    "embed a list": (body([["b.0"], {}, []]), "body"),
    "callbacks": (body([["b.0"], {}, {"callbacks": [{"task": "x", "args": []}]}]), "body"),
    "errbacks": (body([["b.0"], {}, {"errbacks": [{"task": "x"}]}]), "body"),
    "a chain": (body([["b.0"], {}, {"chain": [{"task": "x"}]}]), "body"),
    "a chord": (body([["b.0"], {}, {"chord": {"task": "x"}}]), "body"),
    "a body of kombu's types": (body([[TYPED], {}, {}]), "body"),
    "body nested 2,000 deep": (body("[" * 2000 + "]" * 2000), "body"),
    "body no base64": (lambda message: in_base64("")(message) | {"body": "%%%"}, "body"),
    "body cut-off base64": (lambda message: in_base64("")(message) | {"body": "W1siYi4wIl0se3"}, "body"),
    "body binary": (in_base64(b"\xff\xfe\x80"), "body"),
    "body pickle": (in_base64(pickle.dumps([["b.0"], {}, {}])), "body"),
    "pickle, said to be": (
        lambda message: (
            in_base64(pickle.dumps([["b.0"], {}, {}]))(message)
            | {"content-type": "application/x-python-serialize", "content-encoding": "binary"}
        ),
        "content-type",
    ),
    "body in rot13": (put("properties.body_encoding", "rot13"), "body_encoding"),
    "body encoding a number": (put("properties.body_encoding", 13), "body_encoding"),
    # The ref.
    "ref a number": (body([[7], {}, {}]), "body"),
    "ref null": (body([[None], {}, {}]), "body"),
    "ref a list": (body([[["b.0"]], {}, {}]), "body"),
    "ref a path": (ref("../../etc/passwd"), "BATCH"),
    "ref empty": (ref(""), "BATCH"),
    "ref a batch": (ref("b"), "BATCH"),
    "ref open": (ref("b.0-"), "BATCH"),
    "ref backwards": (ref("b.2-1"), "FIRST"),
    "ref negative": (ref("b.-1"), "BATCH"),
    "ref with a line break": (ref("b.0\n"), "BATCH"),
    "ref with a NUL": (ref("b\0.0"), "BATCH"),
    "ref with other digits": (ref("b.٠"), "BATCH"),
    "ref with wide digits": (ref("b.\uff10"), "BATCH"),
    "ref of a batch that is too long": (ref("x" * 65 + ".0"), "BATCH"),
    "ref of 20,000 characters": (ref("b." + "0" * 20_000), "BATCH"),
    "ref of half a surrogate": (ref("\ud800.0"), "JSON"),
    "a range of 999,999,999": (ref("nobatch.0-999999998"), "500"),
    "a range of one too many": (ref("nobatch.0-500"), "500"),
    # Size.
    "a label of 100,000 characters": (put("headers.kwargsrepr", "x" * 100_000), "65,536"),
    "a good message in 100,000 blanks": (text(lambda good: " " * 100_000 + good), "65,536"),
    "10 MB beside a good message": (put("pad", "x" * 10_000_000), "65,536"),
    "50 MB of body": (body("x" * 50_000_000), "65,536"),
}

# Whole messages in an unusual form, each for a job of its own.
ODD: dict[str, Change] = {
    "as Celery writes it": lambda message: (
        in_base64(
            json.dumps([[message["headers"]["id"]], {}, dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))])
        )(message)
        | {"headers": message["headers"] | dict.fromkeys(("eta", "expires", "group", "group_index", "stamped_headers"))}
    ),
    "with no limit, no retry, no stamp": lambda message: (
        message | {"headers": message["headers"] | {"timelimit": [None, None], "retries": 0, "stamps": {}}}
    ),
    "put back by a worker": put("properties.delivery_info.redelivered", True),
    "without priority": drop("properties.priority"),
    "with the highest priority": put("properties.priority", 9),
    "a key of kombu's types": put("pad", TYPED),
    "a key nested 100 deep": text(lambda good: good[:-1] + ',"pad":' + "[" * 100 + "]" * 100 + "}"),
    "a body twice": text(lambda good: '{"body":7,' + good[1:]),
    "a delivery tag": put("properties.delivery_tag", "t"),
    "the same delivery tag again": put("properties.delivery_tag", "t"),
    "an empty label": put("headers.kwargsrepr", ""),
    "a label of 10,000 characters": put("headers.kwargsrepr", "ü" * 10_000),
    "blanks around": text(lambda good: f"\n {good}\n "),
}


def broadcast(content: Any, **changes: Any) -> str:
    in_it = base64.b64encode(json.dumps(content).encode()).decode()
    properties = {"body_encoding": "base64", "delivery_tag": "t", "priority": 0}
    properties["delivery_info"] = {"exchange": "celery.pidbox", "routing_key": ""}
    whole = {"body": in_it, "content-type": "application/json", "content-encoding": "utf-8", "headers": {}}
    return json.dumps(whole | {"properties": properties} | changes)


PING: dict[str, Any] = {"method": "ping", "arguments": {}, "destination": None}
BROADCASTS: dict[str, bytes | str] = {
    "a sentence": "hello, workers",
    "invalid UTF-8": b"\xff\xfe",
    "a number": "42",
    "a list": "[]",
    "an empty object": "{}",
    "nested 100,000 deep": "[" * 100_000,
    "2 MB": broadcast(PING, pad="x" * 2_000_000),
    "kombu's own type": broadcast(PING, pad={"__type__": "decimal", "__value__": "x"}),
    "no body": broadcast(PING, body=None),
    "a body that is no base64": broadcast(PING, body="%%%"),
    "no properties": broadcast(PING, properties=None),
    "empty properties": broadcast(PING, properties={}),
    "headers a list": broadcast(PING, headers=[]),
    "a clock that is a word": broadcast(PING, headers={"clock": "x"}),
    "pickle": broadcast(PING, **{"content-type": "application/x-python-serialize"}),
    "another encoding": broadcast(PING, **{"content-encoding": "klingon"}),
    "compressed": broadcast(PING, headers={"compression": "zip-bomb"}),
    "a list of commands": broadcast([PING]),
    "a command without method": broadcast({"arguments": {}}),
    "a method of 100,000 characters": broadcast(PING | {"method": "x" * 100_000}),
    "a method that is a list": broadcast(PING | {"method": ["ping"]}),
    "arguments that are a list": broadcast(PING | {"arguments": ["x"]}),
    "a destination that is a number": broadcast(PING | {"destination": 7}),
    "an answer to nowhere": broadcast(PING | {"reply_to": {"x": 1}}),
    "an answer to a word": broadcast(PING | {"reply_to": "me"}),
    "an event without host": broadcast({"type": "worker-heartbeat"}),
    "an event of a list": broadcast([1, 2]),
    "an event without type": broadcast({"hostname": "x@y"}, headers={"hostname": "x@y"}),
}


@pytest.fixture(scope="module", params=list(Pool))
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A worker of a pool; no sweep, so only what is on the queue makes it run something."""
    with World(tmp_path_factory.mktemp("world")) as world:
        yield world.start(request.param, slots=2, sweeps=0)


def the_worker(world: World) -> tuple[Service, Pool]:
    service = world.services[-1]
    return service, Pool(service.name.removeprefix("worker-"))


def dead_letters(world: World, pool: Pool) -> list[DeadLetter]:
    """The oldest first."""
    return DeadLetters(world.ledger.redis, world.settings.key_prefix).read(pool)[::-1]


def push(world: World, key: str, elements: list[bytes]) -> None:
    with world.valkey.client(30) as redis:
        for element in elements:
            redis.lpush(world.settings.key_prefix + key, element)


def test_what_is_no_message_is_a_dead_letter_and_the_next_job_runs(running: World) -> None:
    service, pool = the_worker(running)
    elements = {name: element(made_of, pool) for name, (made_of, _) in DEAD.items()}
    before = service.log.stat().st_size
    push(running, pool.queue, list(elements.values()))
    push(running, f"{pool.queue}\x06\x169", [b"with another priority"])
    running.submit(pool, [running.file("next")], batch="next")

    def over() -> bool:
        return not service.running or len(dead_letters(running, pool)) > len(elements)

    try:
        wait_for(over, seconds=30, every=0.2, what="all to be dead letters")
    finally:
        letters = dead_letters(running, pool)
        missed = list(elements)[len(letters) :]
        assert not missed, f"worker ended with {service.returncode}; not got past: {missed[:3]}"
    all_done(running, 1, "next")
    for (name, (_, reason)), letter in zip(DEAD.items(), letters, strict=False):
        assert reason in letter.reason, f"{name}: {letter.reason}"
        assert letter.bytes == len(elements[name]), name
        assert len(letter.reason) <= 200
        assert letter.element == elements[name][:4096].decode(errors="backslashreplace")[:4096]
    assert service.log.stat().st_size - before < 500 * (len(elements) + 2)
    # Nothing is put back by a worker that ends, and the next one lives.
    assert service.terminate() == 0
    with running.valkey.client() as redis:
        assert not redis.keys(f"{running.settings.key_prefix}{pool.queue}*")
    running.worker(pool, slots=2).wait_until_ready()
    running.submit(pool, [running.file("after")], batch="after")
    all_done(running, 1, "after")


def test_a_whole_message_in_an_odd_form_runs_its_job(running: World) -> None:
    _, pool = the_worker(running)
    before = len(dead_letters(running, pool))
    jobs = [running.file(f"odd{n}") for n in range(len(ODD))]
    running.ledger.submit([Jobs(Ref("odd", n, n), pool, (job,)) for n, job in enumerate(jobs)])
    running.ledger.seal("odd", len(jobs))
    made = (made_of(good(pool, f"odd.{n}")) for n, made_of in enumerate(ODD.values()))
    push(running, pool.queue, [(each if isinstance(each, str) else json.dumps(each)).encode() for each in made])
    try:
        all_done(running, len(ODD), "odd")
    finally:
        assert dead_letters(running, pool)[before:] == []


def test_a_broadcast_that_cannot_be_read_is_dropped_with_a_line(running: World) -> None:
    service, pool = the_worker(running)
    before = service.log.stat().st_size
    with running.valkey.client() as redis:
        for channel in ("celery.pidbox", "celeryev/worker.heartbeat", "celeryev/worker.elect"):
            for data in BROADCASTS.values():
                redis.publish(f"{running.settings.key_prefix}/0.{channel}", data)
    with running.celery() as app:
        wait_for(lambda: app.control.ping(timeout=1.0), what="an answer by remote control")
    assert service.running, service.text()[-2000:]
    assert service.log.stat().st_size - before < 400 * 3 * len(BROADCASTS)
    running.submit(pool, [running.file("heard")], batch="heard")
    all_done(running, 1, "heard")


def test_a_full_redis_keeps_no_dead_letter_and_the_worker_goes_on(running: World) -> None:
    service, pool = the_worker(running)
    before = len(dead_letters(running, pool))
    with running.valkey.client() as redis:
        with redis.pipeline() as at_once:
            at_once.lpush(running.settings.key_prefix + pool.queue, "there is no room")
            at_once.config_set("maxmemory", "1mb")
            at_once.execute()
        wait_for(lambda: "the dead letter is not kept" in service.text(), what="the worker to say so")
        redis.config_set("maxmemory", "0")
    running.submit(pool, [running.file("room")], batch="room")
    all_done(running, 1, "room")
    assert "there is no room" in service.text()
    assert len(dead_letters(running, pool)) == before
