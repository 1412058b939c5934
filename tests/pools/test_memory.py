"""What a job takes of Redis: record, message and books together, by Redis' own count."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ledger.jobs import Attempt, Executor, Job, JobState, Message, Pool, Ref, Result
from ledger.leases import Identity, Leases
from ledger.ledger import Ledger
from ledger.messages import Envelope, Publisher, label
from ledger.redis_client import connect
from ledger.settings import Settings
from tests.valkey_process import ValkeyProcess
from tests.worker_process import ROOT

JOBS = 20_000
QUEUED, RUNNING, DONE = 1024, 1024, 400  # bytes per job at most; measured: 802, 558 and 394
BATCH = "20261122-120000-abcdef"  # as long as a generated name
WHO = Executor("threads@3f2a1b4c5d6e", 12345, 12388, None)  # as in a container


def job(number: int) -> Job:
    url = f"https://downloads.example.org/releases/2026/some-project/artifact-{number:06d}.bin"
    return Job(url, url.rpartition("/")[2], hashlib.sha256(url.encode()).hexdigest(), 1_000_000 + number)


def test_a_job_takes_a_kibibyte_while_it_is_queued_or_runs_and_400_bytes_once_it_is_done(
    settings: Settings, valkey: ValkeyProcess
) -> None:
    redis = connect(settings)
    ledger, publisher = Ledger(redis, settings.key_prefix), Publisher(settings)
    leases = Leases(redis, settings.key_prefix, 600)
    incarnation = leases.register(Identity(WHO.worker, Pool.THREADS, WHO.pid))
    ledger.submit([Message(Ref("first", 0, 0), Pool.THREADS, (job(0),))])  # scripts, and keys that exist once
    publisher.send([Envelope("first.0", Pool.THREADS, "first")])
    before = redis.info("memory")["used_memory"]

    def per_job() -> float:
        return float(redis.info("memory")["used_memory"] - before) / JOBS

    for at in range(0, JOBS, 500):
        part = [(number, job(number)) for number in range(at, at + 500)]
        ledger.submit([Message(Ref(BATCH, n, n), Pool.THREADS, (each,)) for n, each in part])
        publisher.send(Envelope(f"{BATCH}.{n}", Pool.THREADS, label(each)) for n, each in part)
    queued = per_job()
    claims = [claim for n in range(JOBS) for claim in ledger.claim(Ref(BATCH, n, n), Pool.THREADS, incarnation)]
    redis.delete(ledger.keys.queue(Pool.THREADS))  # its messages were taken
    for claim in claims:
        ledger.progress(claim, 500_000, claim.record.job.size)
    running = per_job()
    for claim in claims:
        begun = claim.record.queued + 3600  # as if it had been queued for an hour
        attempt = Attempt(WHO, begun, begun + 5, begun + 0.1, 1_000_000, 200)
        size, sha256 = claim.record.job.size or 0, claim.record.job.sha256 or ""
        result = Result(size, sha256, (), f'"67f2a1b0-{size:x}"', "Sun, 06 Apr 2025 15:43:12 GMT")  # as nginx says them
        ledger.close(claim, JobState.DONE, attempt, result=result)
    done = per_job()
    print(f"bytes per job: {queued:.0f} queued, {running:.0f} running, {done:.0f} done")
    (record,) = ledger.read([f"{BATCH}.{JOBS - 1}"])
    assert record.sha256 == record.job.sha256 == job(JOBS - 1).sha256
    assert (queued <= QUEUED, running <= RUNNING, done <= DONE) == (True, True, True), (queued, running, done)


def test_the_tests_measure_a_redis_that_keeps_hashes_as_the_deployed_one_does(valkey: ValkeyProcess) -> None:
    deployed = dict(
        line.split(maxsplit=1)
        for line in Path(ROOT / "deploy/redis.conf").read_text().splitlines()
        if line.startswith("hash-max-listpack")
    )
    with valkey.client() as redis:
        assert redis.config_get("hash-max-listpack-*") == deployed
