"""Redis as people have it: behind TLS, on a socket, without CONFIG. One URL says it to every role, or none starts."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flower.utils.broker import Broker

from ledger.jobs import JobState, Pool
from tests.authority import make_authority
from tests.producer_process import run
from tests.relay import TlsRelay
from tests.valkey_process import HOST, ValkeyProcess
from tests.waiting import stays, wait_for
from tests.worker_process import ROOT
from tests.world import World, pools

pytestmark = pytest.mark.timeout(120)
PASSWORD = "p@ss/w#rd:%25,?&=+ü"  # noqa: S105 - of a server that lives as long as a test


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(appendonly=True, options={"unixsocket": str(tmp_path / "socket")}) as valkey:
        with valkey.client() as redis:
            redis.config_set("requirepass", PASSWORD)
        yield valkey


def world_at(folder: Path, valkey: ValkeyProcess, url: str, **more: Any) -> World:
    (folder / "password").write_text(PASSWORD)
    return World(folder, valkey=valkey, redis_url=url, redis_password_file=folder / "password", **more)


def every_role_works(world: World, pool: Pool) -> None:
    world.start(pool)
    assert run(world.settings, "submit", "--wait", "--pool", pool, world.file("f").url).code == 0
    assert flower_sees_the_queue(world, pool) == 0


def flower_sees_the_queue(world: World, pool: Pool) -> int:
    """How many messages Flower's page of the broker says that it has."""
    with world.celery() as app:
        broker = Broker(
            app.connection(connect_timeout=1.0).as_uri(include_password=True),
            broker_options=app.conf.broker_transport_options,
            broker_use_ssl=app.conf.broker_use_ssl,
        )
        (queue,) = asyncio.run(broker.queues([pool.queue]))
    return int(queue["messages"])


@pools
def test_tls_with_an_authority_and_a_client_certificate_of_ones_own(
    tmp_path: Path, valkey: ValkeyProcess, pool: Pool
) -> None:
    folder = make_authority(tmp_path)
    own = f"ssl_ca_certs={folder}/ca.pem&ssl_certfile={folder}/server.pem&ssl_keyfile={folder}/server.key"
    with (
        TlsRelay(valkey.port, folder, clients=True) as relay,
        world_at(tmp_path, valkey, f"rediss://{HOST}:{relay.port}/3?{own}") as world,
    ):
        every_role_works(world, pool)
        assert "insecure" not in world.service(f"worker-{pool}").text()


@pools
@pytest.mark.parametrize("host", [HOST, "localhost"])
def test_a_server_that_no_certificate_vouches_for_hears_nothing(
    tmp_path: Path, valkey: ValkeyProcess, pool: Pool, host: str
) -> None:
    """Given an authority that nobody trusts, and a certificate for another name."""
    folder = make_authority(tmp_path)
    trust = "" if host == HOST else f"?ssl_ca_certs={folder}/ca.pem&ssl_cert_reqs=CERT_REQUIRED"
    with (
        TlsRelay(valkey.port, folder) as relay,
        world_at(tmp_path, valkey, f"rediss://{host}:{relay.port}/0{trust}") as world,
    ):
        service = world.worker(pool)
        wait_for(lambda: "certificate verify failed" in service.text(), seconds=30, what="the worker to say why")
        stays(lambda: service.running, seconds=2, what="the worker to wait")
        said = run(world.settings, "status")
        assert (said.code, "certificate verify failed" in said.err) == (3, True)
        assert relay.carried == 0


@pools
@pytest.mark.parametrize("scheme", ["unix", "redis+socket"])
def test_a_socket_of_the_machine(tmp_path: Path, valkey: ValkeyProcess, pool: Pool, scheme: str) -> None:
    with world_at(tmp_path, valkey, f"{scheme}://{tmp_path}/socket") as world:
        every_role_works(world, pool)


@pools
def test_a_redis_without_config(tmp_path: Path, valkey: ValkeyProcess, pool: Pool) -> None:
    with world_at(tmp_path, valkey, valkey.url) as world:
        world.ledger.redis.acl_setuser("default", enabled=True, commands=["-config"])
        every_role_works(world, pool)
        assert {record.state for name in world.ledger.batches(9) for record in world.records(name)} == {JobState.DONE}
        assert "WARNING" not in world.service("sweep").text()


ROLES = {
    "sweep": "-m ledger.sweep",
    "producer": "-m producer status",
    "flower": "-m celery -A worker.app flower --port=0",
    **{
        f"worker-{pool}": f"-m celery -A worker.app worker -P {pool} -Q {pool.queue} -n x@%h -c 1"
        for pool in list(Pool)
    },
}


@pytest.mark.parametrize("role", list(ROLES))
@pytest.mark.parametrize(
    "url", ["sentinel://u:secret@h:26379/0", "redis+cluster://h:1", "redis://h:1,g:2/0", "me:secret@h/0"]
)
def test_what_is_not_one_redis_is_refused_in_one_sentence(role: str, url: str) -> None:
    environment = {**os.environ, "DOWNPOUR_REDIS_URL": url}
    command = [sys.executable, *ROLES[role].split()]
    said = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 2
    (line,) = (said.stdout + said.stderr).strip().splitlines()
    assert "DOWNPOUR_REDIS_URL: expected the URL of one Redis" in line
    assert "secret" not in line
