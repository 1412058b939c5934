"""Real workers of all pools behind a real proxy: names that only it knows, CONNECT, messages of many jobs."""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from ledger.jobs import FailureKind, Job, JobState, Pool
from tests.proxy_process import ProxyProcess
from tests.unit.download_kit import Reciter, ok, reciting
from tests.worker_process import worker
from tests.world import World, pools

BODY = bytes(range(256)) * 1000
CREDENTIALS = "me:s3cret"


@dataclass
class Behind:
    world: World
    proxy: ProxyProcess
    secure: Reciter


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, authority: Path, server_side: ssl.SSLContext) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("world")
    with (
        World(folder, read_timeout=3.0, max_attempts=2) as world,
        reciting(*[ok(BODY)] * 20, tls=server_side) as secure,
        ProxyProcess(
            {"good.example": secure.port, "files.example": world.origin.port}, credentials=CREDENTIALS
        ) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        world.settings = world.settings.model_copy(update={"proxy": SecretStr(proxy.url)})
        yield Behind(world.start(*Pool), proxy, secure)


@pools
def test_every_job_goes_through_the_proxy_and_its_record_says_so(behind: Behind, pool: Pool) -> None:
    world, batch = behind.world, f"proxied-{pool}"
    far = replace(world.file("f.bin", 300_000), url=f"http://files.example/files/f.bin?size=300000&by={pool}")
    jobs = [
        far,
        Job("https://good.example/s.bin", "s.bin", hashlib.sha256(BODY).hexdigest()),
        Job(f"http://files.example/faults/resume?key={pool}&size=300000", "cut.bin"),
        Job("http://169.254.169.254/latest/", "metadata"),
        Job("http://nobody.example/", "nobody"),
    ]
    world.submit(pool, jobs, batch=batch)
    done, secure, cut, metadata, nobody = world.finished(batch)
    for record in (done, secure, cut):
        assert record.state is JobState.DONE
        assert "via proxy" in record.notes
    assert [attempt.kind for attempt in cut.attempts] == [FailureKind.TRUNCATED, None]
    assert (metadata.last and metadata.last.kind, nobody.last and nobody.last.kind) == (
        FailureKind.REFUSED,
        FailureKind.SERVER,  # the proxy's 502
    )
    asked = [each["line"] for each in behind.proxy.requests() if each["known"]]
    assert f"GET {far.url} HTTP/1.1" in asked
    assert "CONNECT good.example:443 HTTP/1.1" in asked
    assert not any("169.254" in line for line in asked)
    for record in (done, secure, cut):
        assert world.content(record)


@pools
def test_a_message_of_many_jobs_goes_through_the_proxy(behind: Behind, pool: Pool) -> None:
    world, batch = behind.world, f"chunk-{pool}"
    jobs = [
        replace(world.file(f"{n}.bin"), url=f"http://files.example/files/{n}.bin?size=4096&by={batch}")
        for n in range(20)
    ]
    world.submit(pool, jobs, batch=batch, carried=20)
    records = world.done(batch)
    assert all("via proxy" in record.notes for record in records)
    assert sum(f"by={batch} " in each["line"] for each in behind.proxy.requests()) == 20


def test_the_proxy_s_password_is_in_no_log_and_no_record(behind: Behind) -> None:
    world = behind.world
    said = "".join(service.text() for service in world.services)
    for name in world.ledger.batches():
        said += json.dumps([str(record) for record in world.records(name)])
    assert "s3cret" not in said
    assert "Basic " not in said
    assert "s3cret" not in repr(world.settings)
    assert world.batch("proxied-threads").finished


@pools
def test_a_worker_with_a_proxy_that_is_none_does_not_start(behind: Behind, tmp_path: Path, pool: Pool) -> None:
    settings = behind.world.settings.model_copy(update={"proxy": SecretStr("socks5://me:s3cret@here:1")})
    with worker(pool, settings, tmp_path) as service:
        assert service.wait(60) == 2
        assert "DOWNPOUR_PROXY: expected http://[user:password@]host:port" in service.text()
        assert "s3cret" not in service.text()
    assert [path.name for path in tmp_path.iterdir()] == [f"worker-{pool}.log"]
