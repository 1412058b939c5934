"""The course of an attempt that has a thread or a greenlet to itself: ask, read the answer, verify."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from download.addresses import Target
from download.attempt import Attempt, Fetched, Progress, Wanted, refusal
from download.errors import TruncatedError
from download.proxy import NOTE
from download.redirects import follow, let_go
from download.sink import Buffer
from download.timeouts import Timeouts
from download.wire import Answer, Wire


class Stream(Attempt):
    sink: Buffer

    def __init__(
        self, wanted: Wanted, sink: Buffer, timeouts: Timeouts, *, wire: Wire, user_agent: str, progress: Progress
    ) -> None:
        super().__init__(wanted, sink, timeouts, user_agent=user_agent, progress=progress)
        self.wire = wire
        self.answer: Answer | None = None  # the last one

    def run(self, leftover: Path) -> Fetched:
        first = Target.parse(self.wanted.url)
        self.partial.adopt(leftover)
        self.sink.hash_kept(self.timeouts.ask)  # before the request, so that no server has to wait for it
        answer = self.open(first)
        self.read(answer)
        notes = self.verify(answer)
        if answer.proxied:
            notes.append(NOTE)
        self.wire.keep(answer)
        self.answer = None
        return self.fetched(answer, notes)

    def open(self, first: Target) -> Answer:
        """An answer whose body is the file, or the part of it that is missing."""
        answer = self.ask(first)
        if answer.status == 416 and self.partial.size:
            let_go(self.wire, answer, self.timeouts)
            self.sink.start_again()
            answer = self.ask(first)
        if answer.status == 206:
            self.go_on_with(answer)
        elif answer.status in (200, 203):
            self.begin_with(answer)
        else:
            let_go(self.wire, answer, self.timeouts)
            self.answer = None
            raise refusal(answer)
        return answer

    def ask(self, first: Target) -> Answer:
        return follow(self.wire, first, lambda target: self.headers(first, target), self.timeouts, self.saw)

    def saw(self, answer: Answer) -> None:
        self.answer, self.status = answer, answer.status

    def read(self, answer: Answer) -> None:
        buffer = self.sink
        self.timeouts.reading_body()
        self.tell()

        def receive(read: Callable[[memoryview], int | None]) -> bool | None:
            """Whether to flush; None: nothing came."""
            try:
                count = read(buffer.space())
            except TruncatedError as error:
                raise self.cut_short() from error
            if not count:
                return None
            flush = buffer.took(count)
            self.timeouts.arrived(count)
            return flush

        def refill(until: float) -> bool:
            while time.monotonic() < until and receive(answer.glance) is False:
                pass
            return buffer.full

        while (flush := receive(answer.read)) is not None:
            if flush:
                buffer.flush(refill)
                self.tell()
        buffer.flush()
        self.tell()

    def close(self) -> None:
        if self.answer is not None:
            self.answer.close()
        self.partial.close()
