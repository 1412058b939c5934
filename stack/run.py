"""A running stack: started in order, watched, stopped, and gone without a trace.

    with Stack({Pool.THREADS: 8}) as stack:
        stack.redis_url("producer"), stack.origin_url, stack.downloads
        stack.processes["worker-threads"].pid
        subprocess.run([sys.executable, "-m", "producer", ...], env=stack.env("producer"), cwd=ROOT)

Valkey comes first, then everything else at once, Flower last, because a Flower that was there before the
workers lists their queues wrongly. They stop in the opposite order.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from ledger.jobs import Pool
from stack import ports, valkey
from stack.errors import StackError
from stack.plan import CONCURRENCY, FOLDERS, ROOT, Plan
from stack.processes import POLL, Command, Process, Restarts, describe_exit, start_reaper, stop

PATIENCE = 60.0  # seconds for a service to become ready
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Stack:
    """Valkey, and as many of the Procfile's services as were asked for.

    Args:
        pools: a worker for each of these, with that concurrency; all three if not given.
        origin, sweep, flower: whether to run them.
        downloads: receives the files; if not given, a folder that is removed at the end.
        settings: more variables for every process, e.g. ``{"DOWNPOUR_LEASE": "2"}``.
        prefer: ports by service (valkey, origin, flower) to be used if they are free.
        insist: ports that have to be free.
        remove: files that have to go at the end, even if this process is killed.
        say: called with a line of progress.
    """

    def __init__(
        self,
        pools: Mapping[Pool, int] | None = None,
        *,
        origin: bool = True,
        sweep: bool = True,
        flower: bool = False,
        downloads: Path | None = None,
        settings: Mapping[str, str] | None = None,
        prefer: Mapping[str, int] | None = None,
        insist: Mapping[str, int] | None = None,
        remove: Sequence[Path] = (),
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.processes: dict[str, Process] = {}
        self._restarts: defaultdict[str, Restarts] = defaultdict(Restarts)
        self._pools = CONCURRENCY if pools is None else pools
        self._together = [
            *(["origin"] if origin else []),
            *(["sweep"] if sweep else []),
            *(f"worker-{pool}" for pool in self._pools),
        ]
        self._last = ["flower"] if flower else []
        self._downloads = downloads
        self._settings = settings or {}
        self._prefer = prefer or {}
        self._insist = insist or {}
        self._remove = remove
        self._say = say

    def __enter__(self) -> Stack:
        self._prepare()
        try:
            self.start("valkey")
            self.start(*self._together)
            self.start(*self._last)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        private = Path(tempfile.mkdtemp(prefix="downpour-")).resolve()
        self._reaper = start_reaper(private, self._remove)
        try:
            for name in FOLDERS:
                (private / name).mkdir(mode=0o700)
            valkey.make_keys(ROOT, private / "keys")
            chosen = self._choose_ports()
            downloads = self._downloads or private / "downloads"
            downloads.mkdir(parents=True, exist_ok=True)
        except BaseException:
            self._reaper.communicate()
            raise
        self.plan = Plan(
            private=private,
            downloads=downloads.resolve(),
            redis_port=chosen["valkey"],
            origin_port=chosen["origin"],
            flower_port=chosen["flower"],
            pools=dict(self._pools),
            settings=self._settings,
        )

    def _choose_ports(self) -> dict[str, int]:
        for name, port in self._insist.items():
            if not ports.free(port):
                raise StackError(f"{name} cannot have port {port}: somebody listens there; nothing was started")
        chosen = dict(self._insist)
        for name in ("valkey", "origin", "flower"):
            if name not in chosen:
                chosen[name] = ports.choose(self._prefer.get(name), frozenset(chosen.values()))
        return chosen

    @property
    def origin_url(self) -> str:
        return self.plan.origin_url

    @property
    def flower_url(self) -> str:
        return self.plan.flower_url

    @property
    def downloads(self) -> Path:
        return self.plan.downloads

    def redis_url(self, role: str) -> str:
        """Of worker, sweep, producer or flower; the password is in ``env(role)``'s DOWNPOUR_REDIS_PASSWORD_FILE."""
        return self.plan.redis_url(role)

    def env(self, role: str) -> dict[str, str]:
        """The whole environment for a process of one's own beside the stack's; it ends with the stack."""
        return self.plan.env(role)

    def start(self, *names: str, patience: float = PATIENCE) -> None:
        """Start services, or start them again, and wait until each is ready.

        Raises:
            StackError: one ended, or was not ready in time.
        """
        self.launch(*map(self._command, names), patience=patience)

    def launch(self, *commands: Command, patience: float = PATIENCE) -> None:
        """The same with commands that differ from the Procfile's; see ``Plan.command``.

        Raises:
            StackError: as above.
        """
        begun = time.monotonic()
        for command in commands:
            self.processes[command.name] = Process(command)
        waiting = [command.name for command in commands]
        while waiting:
            for name in tuple(waiting):
                if self._ready(name):
                    waiting.remove(name)
                    self._say(f"{name} ready {time.monotonic() - begun:.1f} s")
                elif time.monotonic() - begun > patience:
                    self._fail(name, f"not ready within {patience:.0f} s", self.plan.probe(name).expected)
            if waiting:
                time.sleep(POLL)

    def forget(self, *names: str) -> None:
        """Stopped for good: that they are gone is no fault."""
        for name in names:
            del self.processes[name]

    def stop(self, *names: str, grace: float = GRACE) -> list[str]:
        """Stop services; the names of those that had to be killed."""
        return stop([self.processes[name] for name in names], grace)

    def check(self) -> None:
        """Look whether everything still runs.

        Raises:
            StackError: a service has ended that nobody stopped.
        """
        for name, process in self.processes.items():
            if not process.running:
                self._fail(name, "gone", "that it runs until it is stopped")

    def revive(self) -> None:
        """Start again what has ended by itself, each after a pause; to be called often.

        Valkey finds its data, and all find their ports: those go when the stack is stopped.
        """
        for name, process in self.processes.items():
            how, restarts = describe_exit(process.returncode), self._restarts[name]
            if restarts.noticed(process):
                process.kill()  # what it left behind: children, which hold ports and jobs
                self._say(f"{name} ended by itself, {how}; it is started again in {restarts.pause:.0f} s")
            elif restarts.due():
                self.processes[name] = Process(process.command)

    def close(self, grace: float = GRACE) -> None:
        """Stop everything, Valkey last, and remove the private folder. Again: nothing."""
        try:
            late = self.stop(*(name for name in self.processes if name != "valkey"), grace=grace)
            late += self.stop(*(name for name in self.processes if name == "valkey"), grace=grace)
            for name in late:
                self._say(f"{name} did not end within {grace:.0f} s and was killed")
        finally:
            self.processes = {}
            if self._reaper.returncode is None:
                self._reaper.communicate()  # the pipe closes, and it does the rest

    def _command(self, name: str) -> Command:
        if name != "valkey":
            return self.plan.command(name)
        private = self.plan.private
        argv = valkey.argv(private / "keys", self.plan.redis_port, private / "valkey")
        return Command(name, argv, self.env("redis"), ROOT, self.plan.log(name))

    def _ready(self, name: str) -> bool:
        process = self.processes[name]
        if not process.running:
            self._fail(name, "not ready", self.plan.probe(name).expected)
        return self.plan.probe(name).look(process)

    def _fail(self, name: str, what: str, expected: str) -> NoReturn:
        process = self.processes[name]
        raise StackError(
            f"{name} is {what}: expected {expected}, got {describe_exit(process.returncode)}; "
            f"the stack stops. The end of its log:\n{process.tail()}"
        )
