"""/lanes, a page inside Flower: which process, thread or greenlet runs which job, as it happens.

Flower hears every event of the workers and the sweep. Here each execution of a message becomes a *bar* on the lane of
its executor. A bar is sent whole whenever it changed, four times a second. So a tab that is new, was away, or reads too
slowly is sent all bars that are kept, and needs no history.

Bounded: a running bar per executor, KEPT bars that ended, one unsent message per tab.
Kept true by ``tests/browser/test_lanes_page.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections import deque
from itertools import count
from pathlib import Path
from typing import Any

from flower import urls
from flower.events import EventsState
from flower.views import BaseHandler
from flower.views.workers import WorkersView
from tornado.ioloop import PeriodicCallback
from tornado.template import Loader, Template
from tornado.web import StaticFileHandler, authenticated, url

FOLDER = Path(__file__).parent / "lanes"
KEPT = 2000  # bars that ended
WORKERS = 200
LONG = 200  # characters of a label or a note
EVERY = 250  # milliseconds between two messages to a tab
SURE = 5.0  # seconds after which a bar of a process without jobs is over
SLOTS = {"prefork": "process", "threads": "thread", "gevent": "greenlet"}
WHO = ("family", "pid", "thread", "greenlet")
ENDS = {"succeeded": "done", "failed": "failed", "retried": "returned", "revoked": "cancelled"}
DIED = ("its process died", "its worker process died")  # worker/tasks.py, ledger/flower_events.py
FAULTS = os.environ.get("LANES_FAULTS", "")  # of `make up ARGS=--faults`: where the page asks, see stack/faults.py
COMPOSE_URL = os.environ.get("LANES_URL")  # of docker-compose.yml: the published port is unknown inside its container
POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' {FAULTS}; font-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
LINK = """<li class="nav-item"><a class="nav-link{% if active_tab == 'lanes' %} active{% end %}"
  href="{{ reverse_url('lanes') }}" {% if active_tab == 'lanes' %}aria-current="page"{% end %}>Lanes</a></li></ul>
  {% if active_tab in ('tasks', 'workers') %}<link rel="stylesheet" href="{{ reverse_url('lanes') }}/tables.css">
  <script src="{{ reverse_url('lanes') }}/tables.js" defer></script>{% end %}"""

Bar = dict[str, Any]
Task = tuple[str, str]  # worker's name, id of the message


class Board:
    """The bars of all workers. Everything happens in Flower's loop."""

    def __init__(self) -> None:
        self.tabs: set[Feed] = set()
        self._timer = PeriodicCallback(self._send, EVERY)
        self._numbers = count()
        self._running: dict[Task, Bar] = {}
        self._on: dict[tuple[Any, ...], Task] = {}  # by executor: what it runs
        self._early: dict[Task, int] = {}  # jobs of groups that were not heard to begin yet
        self._ended: deque[Bar] = deque(maxlen=KEPT)
        self._workers: dict[str, Any] = {}  # by process group: what its heartbeats say
        self._totals: dict[str, Any] = {}
        self._busy: set[tuple[str, int]] = set()  # processes with jobs, by the last totals
        self._changed: dict[int, Bar] = {}
        self._news: dict[str, Any] = {}

    def take(self, event: dict[str, Any], label: str | None) -> None:
        """
        Args:
            label: of a task: the file that its job is for
        """
        group, _, what = event["type"].partition("-")
        if group == "ledger":
            self._count(event)
        elif group == "worker" and "family" in event:
            pool = event.get("pool")  # workers of a version before this one say none
            self._workers[event["family"]] = event["hostname"], event["pid"], event["slots"], pool
            if len(self._workers) > WORKERS:
                del self._workers[next(iter(self._workers))]
            self._news["workers"] = self._workers
        elif group == "task":
            task = event["hostname"], event["uuid"]
            if what == "started" and "executor" in event:
                self._begin(task, event, label)
            elif what in ENDS:
                note = str(event.get("result") or event.get("exception") or "")[:LONG]
                lost = what == "retried" and note.startswith(DIED)
                self._end(task, event["timestamp"], "lost" if lost else ENDS[what], note)
            elif what == "progress" and (bar := self._running.get(task)):
                self._change(bar, note=str(event.get("result"))[:LONG])
            if "jobs" in event:
                self._gathered(task, event["jobs"])

    def _gathered(self, task: Task, jobs: int) -> None:
        """A task took more small jobs. A child of prefork says so itself, which may be heard before that it began."""
        if bar := self._running.get(task):
            self._change(bar, jobs=jobs)
        else:
            self._early[task] = jobs
            if len(self._early) > WORKERS:
                del self._early[next(iter(self._early))]

    def _begin(self, task: Task, event: dict[str, Any], label: str | None) -> None:
        executor = tuple(event["executor"])
        for before in (self._on.get(executor), task):  # an executor runs one message at a time
            if before:
                self._end(before, event["timestamp"], "unknown")
        bar = {"n": next(self._numbers), "worker": task[0], "id": task[1], "label": label and label[:LONG]}
        bar |= {"start": event["timestamp"], **dict(zip(WHO, executor, strict=True))}
        if task in self._early:
            bar["jobs"] = self._early.pop(task)
        self._running[task], self._on[executor] = bar, task
        self._change(bar, state="running")

    def _end(self, task: Task, moment: float, state: str, note: str = "") -> None:
        if bar := self._running.pop(task, None):
            self._on.pop(tuple(bar[name] for name in WHO), None)
            self._ended.append(bar)
            self._change(bar, state=state, end=max(moment, bar["start"]), note=note)

    def _change(self, bar: Bar, **fields: Any) -> None:
        bar.update(fields)
        if self.tabs:
            self._changed[bar["n"]] = bar

    def _count(self, totals: dict[str, Any]) -> None:
        """An end may not be heard: what runs in a process that holds no jobs, twice in a row, is over."""
        self._totals = self._news["totals"] = totals
        busy = {(family, pid) for *_, family, pid, held in totals["processes"] if held}
        now = time.time()
        for task, bar in tuple(self._running.items()):
            if (bar["family"], bar["pid"]) not in busy | self._busy and now - bar["start"] > SURE:
                self._end(task, now, "unknown")
        self._busy = busy

    def model(self, worker: str) -> str:
        """What runs the jobs of the newest worker of that name, e.g. ``prefork · 4 processes``; nothing if unknown."""
        for name, _, slots, pool in reversed(self._workers.values()):
            if name == worker and pool in SLOTS:
                return f"{pool} · {slots} {SLOTS[pool]}{'' if slots == 1 else 'es' if pool == 'prefork' else 's'}"
        return ""

    def everything(self) -> str:
        bars = sorted([*self._ended, *self._running.values()], key=lambda bar: bar["n"])  # by their begin
        return _message(all=True, bars=bars, workers=self._workers, totals=self._totals)

    def open(self, tab: Feed) -> None:
        if not self.tabs:
            self._timer.start()
        self.tabs.add(tab)

    def close(self, tab: Feed) -> None:
        self.tabs.discard(tab)
        if not self.tabs:
            self._timer.stop()
            self._changed = {}

    def _send(self) -> None:
        message = _message(bars=list(self._changed.values()), **self._news)
        self._changed, self._news = {}, {}
        for tab in tuple(self.tabs):
            tab.send(message)


def _message(**fields: Any) -> str:
    return f"data: {json.dumps({'now': time.time(), **fields}, separators=(',', ':'))}\n\n"


board = Board()


class LanesPage(BaseHandler):  # type: ignore[misc]
    @authenticated
    def get(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.render(str(FOLDER / "lanes.html"), compose=COMPOSE_URL is not None, faults=FAULTS)


class File(BaseHandler, StaticFileHandler):  # type: ignore[misc]
    get = authenticated(StaticFileHandler.get)  # type: ignore[assignment]


class Feed(BaseHandler):  # type: ignore[misc]
    """Server-sent events for one tab."""

    @authenticated
    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Accel-Buffering", "no")
        self.over = asyncio.Event()
        self.sent: asyncio.Future[None] | None = None
        self.behind = True
        board.open(self)
        self.send("")
        await self.over.wait()

    def send(self, message: str) -> None:
        if self.sent and not self.sent.done():
            self.behind = True
            return
        self.write(board.everything() if self.behind else message)
        self.behind = False
        self.sent = self.flush()

    def on_connection_close(self) -> None:
        board.close(self)
        self.over.set()


def add_to_flower() -> None:
    """Before Flower's application is made."""
    urls.handlers[:0] = [
        url(r"/lanes", LanesPage, name="lanes"),
        url(r"/lanes/feed", Feed),
        url(r"/lanes/((?:lanes|tables)\.(?:js|css))", File, {"path": FOLDER}),
    ]
    templates = urls.settings["template_loader"] = Loader(urls.settings["template_path"])
    name = "navbar.html"
    text = Path(templates.root, name).read_text()
    templates.templates[name] = Template(text.replace("</ul>", LINK, 1), name, loader=templates)
    fields_of = WorkersView._as_dict
    WorkersView._as_dict = staticmethod(lambda worker: fields_of(worker) | {"model": board.model(worker.hostname)})
    flowers_own = EventsState.event

    def event(state: EventsState, event: dict[str, Any]) -> None:
        task = state.tasks.get(event.get("uuid"))
        board.take(event, task and task.kwargs)
        if not event["type"].startswith("ledger-"):
            flowers_own(state, event)

    EventsState.event = event
    # It would print an address that is another one outside the container, and all tasks of Celery.
    logging.getLogger("flower.command").setLevel(logging.WARNING)
    if COMPOSE_URL:
        logging.getLogger(__name__).info("processes, threads and greenlets at work: %s", COMPOSE_URL)
