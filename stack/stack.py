"""A running stack: started in order, watched, stopped, and gone without a trace.

    with Stack({Pool.THREADS: 8}) as stack:
        stack.plan.origin_url, stack.plan.downloads
        stack.processes["worker-threads"].pid
        subprocess.run([sys.executable, "-m", "producer", ...], env=stack.plan.env("producer"), cwd=ROOT)

Valkey comes first, then everything else at once, Flower last, because a Flower that was there before the
workers lists their queues wrongly. They stop in the opposite order.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from shutil import disk_usage
from typing import NoReturn

from deploy.keys import make_keys
from ledger.jobs import Pool
from stack.plan import CONCURRENCY, FOLDERS, PORTS, Plan, choose_port, is_free
from stack.processes import POLL, Command, Process, Restarts, describe_exit, start_reaper, stop

PATIENCE = 60.0  # seconds for a service to become ready
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_ROOM = 64 * 1024  # bytes; with less on its disk a service may not even write why it ended
_ELSEWHERE = "Make room there, or choose another folder with TMPDIR."


class StackError(Exception):
    """The stack cannot do what it is for; it was stopped, or will be. Says which service, expected and found."""


@dataclass(eq=False)
class Stack:
    """Valkey, and as many of the Procfile's services as were asked for."""

    pools: Mapping[Pool, int] = field(default_factory=lambda: CONCURRENCY)  # a worker each, with that concurrency
    _: KW_ONLY
    origin: bool = True
    sweep: bool = True
    flower: bool = False
    downloads: Path | None = None  # receives the files; None: a folder that is removed at the end
    settings: Mapping[str, str] = field(default_factory=dict)  # more variables for every process
    prefer: Mapping[str, int] = field(default_factory=dict)  # ports by service, used if they are free
    insist: Mapping[str, int] = field(default_factory=dict)  # ports by service that have to be free
    remove: Sequence[Path] = ()  # files that go at the end, even if this process is killed
    say: Callable[[str], None] = lambda _: None  # called with a line of progress
    plan: Plan = field(init=False)  # from the start on
    processes: dict[str, Process] = field(default_factory=dict, init=False)
    _restarts: defaultdict[str, Restarts] = field(default_factory=lambda: defaultdict(Restarts), init=False)

    def __enter__(self) -> Stack:
        private = Path(tempfile.mkdtemp(prefix="downpour-")).resolve()
        self._reaper = start_reaper(private, self.remove)
        together = [*["origin"] * self.origin, *["sweep"] * self.sweep, *(f"worker-{pool}" for pool in self.pools)]
        try:
            self.plan = self._prepare(private)
            self.start("valkey")
            self.start(*together)
            self.start(*["flower"] * self.flower)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self, private: Path) -> Plan:
        try:
            for name in FOLDERS:
                (private / name).mkdir(mode=0o700)
            make_keys(private / "keys")
        except OSError as error:
            why = error.strerror or error
            raise StackError(f"{private} cannot be written to: {why}; nothing was started. {_ELSEWHERE}") from error
        chosen = self._choose_ports()
        downloads = self.downloads or private / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        return Plan(
            private=private,
            downloads=downloads.resolve(),
            redis_port=chosen["valkey"],
            origin_port=chosen["origin"],
            flower_port=chosen["flower"],
            pools=self.pools,
            settings=self.settings,
        )

    def _choose_ports(self) -> dict[str, int]:
        for name, port in self.insist.items():
            if not is_free(port):
                raise StackError(f"{name} cannot have port {port}: somebody listens there; nothing was started")
        chosen = dict(self.insist)
        for name in PORTS:
            if name not in chosen:
                chosen[name] = choose_port(self.prefer.get(name), frozenset(chosen.values()))
        return chosen

    def start(self, *names: str) -> None:
        """Start services, or start them again, and wait until each is ready.

        Raises:
            StackError: one ended, or was not ready in time.
        """
        self.launch(*map(self.plan.command, names))

    def launch(self, *commands: Command) -> None:
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
                process = self.processes[name]
                if not process.running:
                    self._fail(name, "not ready", self.plan.sign(name))
                if self.plan.ready(name, process):
                    waiting.remove(name)
                    self.say(f"{name} ready {time.monotonic() - begun:.1f} s")
                elif time.monotonic() - begun > PATIENCE:
                    self._fail(name, f"not ready within {PATIENCE:.0f} s", self.plan.sign(name))
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
            StackError: a service has ended by itself.
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
                ended = "was" if how.startswith("killed") else "ended by itself with"
                now = time.strftime("%H:%M:%S")
                self.say(f"{now} {name} {ended} {how}; it is started again in {restarts.pause:.0f} s")
            elif restarts.due():
                self.processes[name] = Process(process.command)

    def close(self) -> None:
        """Stop everything, Valkey last, and remove the private folder. Again: nothing."""
        try:
            late = self.stop(*(name for name in self.processes if name != "valkey"))
            late += self.stop(*(name for name in self.processes if name == "valkey"))
            for name in late:
                self.say(f"{name} did not end within {GRACE:.0f} s and was killed")
        finally:
            self.processes = {}
            if self._reaper.returncode is None:
                self._reaper.communicate()  # the pipe closes, and it does the rest

    def _fail(self, name: str, what: str, expected: str) -> NoReturn:
        process, private = self.processes[name], self.plan.private
        full = f" {private} has no room left. {_ELSEWHERE}" if disk_usage(private).free < _ROOM else ""
        raise StackError(
            f"{name} is {what}: expected {expected}, got {describe_exit(process.returncode)}; "
            f"the stack stops.{full} The end of its log:\n{process.tail()}"
        )
