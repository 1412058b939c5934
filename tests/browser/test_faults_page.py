"""`make up ARGS=--faults`: a worker that is killed with the page's button comes back on the page, and so do its jobs.

Without the option there is nothing to ask. And what `make up` shows.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import urllib3
from playwright.sync_api import Browser, Page, expect

from ledger.jobs import Pool
from stack.plan import ROOT
from stack.processes import Command, Process
from tests.browser.test_lanes_page import LOST, rows, running, worker
from tests.producer_process import finish, start
from tests.waiting import wait_for

PROGRAM = """
import sys
from stack import __main__ as stack
stack.ENV_FILE = stack.ROOT / "run" / sys.argv[1]  # a person's own stack may be up
stack.main(["up", "--prefork", "2", "--threads", "2", "--gevent", "2", *sys.argv[2:]])
"""


class Up:
    """`make up`, and what it prints and writes."""

    def __init__(self, process: Process, env_file: Path) -> None:
        self.process, self.env_file = process, env_file
        wait_for(lambda: process.running and "Ctrl-C here stops" in self.said, seconds=60, what="it to be up")
        (self.flower,) = re.findall(r"^Flower +(\S+)", self.said, re.MULTILINE)

    @property
    def said(self) -> str:
        assert self.process.command.log is not None
        return self.process.command.log.read_text()

    @property
    def page(self) -> str:
        return wait_for(lambda: "".join(re.findall(r"\S+#faults=\S+(?=\n)", self.said)), what="the page with its token")

    def submit(self, pool: Pool, name: str, *paths: str) -> None:
        lines = (shlex.split(line)[1].split("=", 1) for line in self.env_file.read_text().splitlines()[1:])
        env = dict(os.environ) | dict(lines)
        words = ["submit", "--pool", pool, "--name", name, *(env["DOWNPOUR_ORIGIN_URL"] + path for path in paths)]
        assert finish(start(env, *words), seconds=30).code == 0


@contextmanager
def up(folder: Path, *options: str) -> Iterator[Up]:
    env_file = ROOT / "run" / f"test-{os.getpid()}-{len(options)}.env"
    words = [sys.executable, "-c", PROGRAM, env_file.name, "--downloads", str(folder / "downloads"), *options]
    with Process(Command("up", words, dict(os.environ), ROOT, folder / "log")) as process:
        try:
            yield Up(process, env_file)
        finally:
            process.stop(20)
    wait_for(lambda: not env_file.exists(), what="its file to be gone")


@pytest.fixture(scope="module")
def with_faults(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("faults"), "--faults") as one:
        yield one


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("plain")) as one:
        yield one


def pid_of(words: str) -> int:
    (pid,) = re.findall(r"(?:worker|process) (\d+)", words)
    return int(pid)


@pytest.mark.parametrize("pool", list(Pool), ids=str)
def test_a_worker_killed_with_its_button_comes_back_and_so_do_its_jobs(with_faults: Up, page: Page, pool: Pool) -> None:
    page.goto(with_faults.page)
    assert page.url == f"{with_faults.flower}/lanes", "no token in what others may see"
    part = worker(page, f"{pool}@", "(worker|process) [0-9]")
    with_faults.submit(pool, f"killed-{pool}", "/paced/12/One.bin", "/paced/12/Two.bin")
    wait_for(lambda: len(running(part, ".bin")) == 2, what="two bars")
    before = pid_of(part.locator("h2").inner_text())
    part.get_by_role("button", name=f"kill pid {before}", exact=True).click()

    dead = page.locator("section.worker.gone", has_text=str(before))
    expect(dead.locator("em")).to_have_text(", killed or stopped", timeout=20_000)
    wait_for(lambda: not running(dead, ".bin"), seconds=2, what="the bars to stop before the lease is over")
    ended = {LOST}
    wait_for(lambda: {row["state"] for row in rows(dead) if ".bin" in row["job"]} == ended, what="the ends of the bars")
    expect(dead.get_by_role("button")).to_have_count(0)

    def is_back() -> bool:
        return pid_of(part.locator("h2").inner_text()) != before and len(running(part, ".bin")) == 2

    wait_for(is_back, what="both jobs on the worker's successor")
    balance = page.locator("#balance")
    expect(balance).to_contain_text(re.compile(r"^(\d+) submitted = 0 waiting \+ 0 running \+ \1 done"), timeout=40_000)
    assert f"kill {before}, of worker-{pool}, from the page of lanes" in with_faults.said


def test_a_frozen_child_is_shown_and_its_job_runs_elsewhere_and_it_can_be_woken(with_faults: Up, page: Page) -> None:
    page.goto(with_faults.page)
    part = worker(page, "prefork@", "worker [0-9]")
    with_faults.submit(Pool.PREFORK, "frozen", "/paced/20/Cold.bin")
    (victim,) = wait_for(lambda: running(part, "Cold.bin"), what="the bar")
    part.get_by_role("button", name=f"freeze {victim}").click()
    expect(page.locator("#faults")).to_contain_text(f"Frozen: {victim} of worker-prefork")
    wait_for(lambda: {row["state"] for row in rows(part) if row["executor"] == victim} == {LOST})
    wait_for(lambda: set(running(part, "Cold.bin")) - {victim}, what="the job on another lane")
    page.locator("#faults").get_by_role("button").click()
    expect(page.locator("#faults")).to_be_empty()
    wait_for(lambda: psutil.Process(int(victim.split()[1])).status() != psutil.STATUS_STOPPED)


def test_a_page_without_the_token_has_the_commands_and_no_buttons(with_faults: Up, page: Page) -> None:
    page.goto(f"{with_faults.flower}/lanes#faults=wrong")
    expect(page.locator("#faults")).to_contain_text("expected the token of this run")
    expect(page.locator(".kill code").first).to_be_visible()
    expect(page.locator(".kill button")).to_have_count(0)


def test_another_site_in_the_same_browser_cannot_hit_even_with_the_token(with_faults: Up, page: Page) -> None:
    token = with_faults.page.split("=")[1]
    page.goto(with_faults.page)
    address = page.locator("main").get_attribute("data-faults")
    pid = pid_of(worker(page, "threads@").locator("h2").inner_text())
    (origin,) = re.findall(r"^origin +(http\S+)", with_faults.said, re.MULTILINE)
    page.goto(origin)
    ask = """async ([url, token]) => {
        const head = { Authorization: "Bearer " + token };
        const tries = [{ method: "POST", headers: head }, { method: "POST", mode: "no-cors" }];
        const said = await Promise.allSettled(tries.map((each) => fetch(url, each)));
        return said.map((each) => each.value?.type ?? "refused");
    }"""
    assert page.evaluate(ask, [f"{address}/kill/{pid}", token]) == ["refused", "opaque"]
    assert psutil.Process(pid).is_running()
    assert f"kill {pid}," not in with_faults.said


def test_without_the_option_there_is_nothing_to_ask(without: Up, page: Page) -> None:
    supervisor = psutil.Process(without.process.pid)
    assert [each for each in supervisor.net_connections("inet") if each.status == psutil.CONN_LISTEN] == []
    listening = {
        each.laddr.port
        for child in supervisor.children(recursive=True)
        for each in child.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert len(listening) == 3, "Valkey, the origin, Flower"
    pid = pid_of("process " + re.findall(r"^threads .* (\d+)", without.said, re.MULTILINE)[0])
    for method in ("GET", "POST"):
        for path in ("/faults", "/lanes/faults", f"/lanes/kill/{pid}", f"/kill/{pid}"):
            assert urllib3.request(method, without.flower + path, retries=False).status == 404, (method, path)
    page.goto(f"{without.flower}/lanes#faults=any")
    expect(page.locator(".kill code").first).to_be_visible()
    expect(page.locator(".kill button")).to_have_count(0)
    assert page.locator("main").get_attribute("data-faults") == ""
    policy = urllib3.request("GET", f"{without.flower}/lanes").headers["Content-Security-Policy"]
    assert "connect-src 'self' ;" in policy
    assert psutil.Process(pid).is_running()


def test_what_up_shows_is_who_is_ready_and_which_file_each_worker_has(without: Up) -> None:
    without.submit(Pool.THREADS, "shown", "/files/Shown.bin")
    wait_for(lambda: "Shown.bin pool=threads" in without.said, what="the end of the job")
    assert re.search(
        r"^worker-threads \| .* Task .*\[shown\.0\] received: 'Shown\.bin from ", without.said, re.MULTILINE
    )
    for who in ("prefork@", "threads@", "gevent@", "downpour.sweep:"):
        assert re.search(rf"{who}.* ready", without.said), who
    for noise in ("SecurityWarning", "WARNING", "Registered tasks", "valkey  ", "celery.chord", "Visit me"):
        assert noise not in without.said, noise
