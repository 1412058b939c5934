"""What every test may ask for: a Valkey of its own, settings that point to it, an origin, certificates."""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings as hypothesis_settings

from ledger.settings import Settings
from tests.authority import make_authority
from tests.origin_process import OriginProcess
from tests.valkey_process import ValkeyProcess

if TYPE_CHECKING:
    from tests.world import Begin, World

# No example is too slow: how long it takes says more about the machine than about the code.
hypothesis_settings.register_profile("downpour", deadline=None)
hypothesis_settings.load_profile("downpour")

# A shell starts what it puts in the background with SIGINT ignored, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def valkey_of_module() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as process:
        yield process


@pytest.fixture
def valkey(valkey_of_module: ValkeyProcess) -> ValkeyProcess:
    """An empty server, shared by the tests of a module; who kills or reconfigures one starts a ``ValkeyProcess``."""
    valkey_of_module.flush()
    return valkey_of_module


@pytest.fixture
def settings(valkey: ValkeyProcess, tmp_path: Path) -> Settings:
    """Settings for the empty server, with times short enough for a test."""
    return Settings(
        redis_url=valkey.url,
        key_prefix="t:",
        downloads=tmp_path / "downloads",
        redis_timeout=2.0,
        redis_patience=5.0,
        lease=1.0,
        renew_every=0.2,
        sweep_every=0.2,
        message_grace=1.0,
    )


@pytest.fixture(scope="module")
def origin() -> Iterator[OriginProcess]:
    with OriginProcess() as process:
        yield process


ERROR = pytest.StashKey[tuple[Any, Any, Any]]()


def pytest_exception_interact(node: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """A world that a failed test leaves shows what its services said."""
    if call.excinfo:
        node.stash[ERROR] = (call.excinfo.type, call.excinfo.value, call.excinfo.tb)


@pytest.fixture
def begin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Begin]:
    """Makes a world of the test's own, with the settings that it is given."""
    from tests.world import World  # with Celery, which most tests do not need

    stack = ExitStack()
    yield lambda **settings: stack.enter_context(World(tmp_path, **settings))
    stack.__exit__(*request.node.stash.get(ERROR, (None, None, None)))


@pytest.fixture
def world(begin: Begin) -> World:
    """A world in which nobody works yet."""
    return begin()


@pytest.fixture
def batch(request: pytest.FixtureRequest) -> str:
    """A name of the test's own, for tests that share a world."""
    return "t" + "".join(c if c.isalnum() else "-" for c in request.node.name)[-60:]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, and server.pem for 127.0.0.1 and good.example."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def server_side(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    return context
