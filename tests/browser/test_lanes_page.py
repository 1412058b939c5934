"""On /lanes one sees the executors that /proc and the ledger have, what follows a kill, and the ledger's balance."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from ledger.jobs import JobState, Pool
from poolbench.experiment import PoolKind
from producer.scenarios import Options, article
from tests.browser.scene import FOR_LONG, PURGE, Scene
from tests.waiting import wait_for

every_pool = pytest.mark.parametrize("pool", list(Pool), ids=str)
JOBS = 2
QUICK_SEED = min(range(99), key=lambda seed: sum(job.seconds or 0 for job in article(Options(seed), PoolKind.PREFORK)))
CELLS = "body => [...body.rows].map(row => [...row.cells].map(cell => cell.textContent))"
LOST = "lost; its job goes back"
PHONE, DESK = ViewportSize(width=390, height=844), ViewportSize(width=1280, height=900)


@pytest.fixture
def lanes(scene: Scene, page: Page) -> Iterator[Page]:
    """The page, of which nothing may come from elsewhere, and nothing may be complained about."""
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{scene.url}/lanes")
    expect(page.locator("#status")).to_contain_text("live")
    yield page
    assert said == []
    assert [url for url in asked if not url.startswith((scene.url, "data:"))] == []


def worker(page: Page, name: str, words: str = "") -> Locator:
    """The part of a worker; the newest, where one was started again."""
    heading = page.locator("h2", has_text=re.compile(rf"{re.escape(name)}.*{words}"))
    return page.locator("section.worker", has=heading).last


def rows(part: Locator) -> list[dict[str, str]]:
    """The text alternative of a worker's lanes."""
    part.locator(".text").evaluate("details => { details.open = true }")
    part.locator(".text tbody tr").first.wait_for()
    names = ("executor", "state", "job", "time", "result")
    return [dict(zip(names, each, strict=True)) for each in part.locator("tbody").evaluate(CELLS)]


def running(part: Locator, job: str) -> list[str]:
    return [row["executor"] for row in rows(part) if row["state"] == "running" and job in row["job"]]


def test_lanes_is_one_click_away_from_every_page_of_flower(scene: Scene, page: Page) -> None:
    for path in ("", "/tasks", "/broker"):
        page.goto(scene.url + path)
        page.get_by_role("link", name="Lanes").click()
        expect(page).to_have_url(f"{scene.url}/lanes")
    expect(page.locator("code", has_text='make producer ARGS="compare article"')).to_be_visible()


@every_pool
def test_the_lanes_are_the_executors_that_proc_and_the_ledger_have(scene: Scene, lanes: Page, pool: Pool) -> None:
    part, batch = worker(lanes, scene.worker(pool)), f"lanes-{pool}"
    main = scene.stack.processes[f"worker-{pool}"].pid
    words = {
        Pool.PREFORK: f"4 processes of worker {main}",
        Pool.THREADS: f"8 threads of process {main}",
        Pool.GEVENT: f"100 greenlets of one thread of process {main}",
    }
    expect(part.locator("h2")).to_have_text(f"{scene.worker(pool)}: {words[pool]}")

    scene.submit(pool, *(f"/paced/4/Lane_{n}.bin" for n in range(JOBS)), batch=batch)
    wait_for(lambda: len(running(part, "Lane_")) == JOBS, what="a lane for each job")
    shown = running(part, "Lane_")
    ids = {int(executor.split()[1]) for executor in shown}
    if pool is Pool.PREFORK:
        children = {child.pid for child in psutil.Process(main).children()}
        assert ids < children
        assert {row["executor"] for row in rows(part)} == {f"pid {child}" for child in children}
        for child in children:
            for number in ("9", "STOP", "CONT"):
                expect(part.locator("code", has_text=f"kill -{number} {child}")).to_be_visible()
    elif pool is Pool.THREADS:
        assert ids < {int(task.name) for task in Path(f"/proc/{main}/task").iterdir()}
    expect(part.locator("code", has_text=f"kill -9 {main}")).to_be_visible()

    wait_for(lambda: scene.counts(batch)[JobState.DONE] == JOBS, what="the jobs to be done")
    ran = [attempt.executor for record in scene.records(batch) for attempt in record.attempts]
    assert {who.thread if who.greenlet is None else who.greenlet for who in ran if who} == ids
    assert {who.pid for who in ran if who} == (ids if pool is Pool.PREFORK else {main})


def test_a_chunk_is_one_bar_with_its_count(scene: Scene, lanes: Page) -> None:
    scene.submit(Pool.THREADS, *(f"/paced/4/Small_{n}.bin" for n in range(6)), batch="chunked", chunk=6)
    part = worker(lanes, scene.worker(Pool.THREADS))
    wait_for(lambda: len(running(part, "6 jobs: Small_0.bin")) == 1, what="one bar")


@every_pool
def test_jobs_that_a_process_gathered_are_one_bar_with_their_count(scene: Scene, lanes: Page, pool: Pool) -> None:
    part, count = worker(lanes, scene.worker(pool)), 300
    seen: dict[str, int] = {}
    batches: list[str] = []

    def over() -> bool:
        return all(scene.counts(batch)[JobState.DONE] == count for batch in batches)

    def gathered() -> dict[str, int]:
        """The table has the last bar of each lane, which may be one of a single job: then there are more."""
        if over():
            batches.append(f"tiny-{pool}-{len(batches)}")
            scene.submit(pool, *(f"/files/Tiny_{n}.bin" for n in range(count)), batch=batches[-1])
        for row in rows(part):
            if found := re.match(r"(\d+) jobs: Tiny_", row["job"]):
                seen[row["job"]] = int(found[1])
                assert row["state"] == "running" or f"of {found[1]} done" in row["result"], row
        return seen

    wait_for(gathered, what="a bar with a count", every=0.1)
    wait_for(over, what="the jobs to be done")


@every_pool
def test_a_killed_worker_ends_on_the_page_and_its_jobs_run_elsewhere(scene: Scene, lanes: Page, pool: Pool) -> None:
    name, batch = f"{pool}@killed", f"killed-{pool}"
    victim = scene.one_more_worker(pool, name)
    scene.drain(scene.worker(pool))
    try:
        part = worker(lanes, name)
        expect(part.locator("h2")).to_contain_text(name, timeout=30_000)
        scene.submit(pool, f"{FOR_LONG}/Orphan.bin", batch=batch)
        wait_for(lambda: running(part, "Orphan"), what="the job to run there")
        scene.undrain(scene.worker(pool))
        victim.signal(signal.SIGKILL)
        expect(part.locator("h2")).to_contain_text("killed or stopped", timeout=30_000)
        ended = {LOST}
        wait_for(lambda: {row["state"] for row in rows(part) if "Orphan" in row["job"]} == ended, what="the bar's end")
        expect(part.locator("code")).to_have_count(0)
        wait_for(lambda: running(worker(lanes, scene.worker(pool)), "Orphan"), what="the job to run elsewhere")
        expect(lanes.locator("h2", has_text=name)).to_have_count(0, timeout=(PURGE + 30) * 1000)
    finally:
        victim.kill()
        scene.cancel(batch)
        scene.undrain(scene.worker(pool))


def test_a_killed_child_of_prefork_is_replaced_on_the_page_and_its_job_has_not_failed(
    scene: Scene, lanes: Page
) -> None:
    part = worker(lanes, scene.worker(Pool.PREFORK))
    before = {row["executor"] for row in rows(part)}
    scene.submit(Pool.PREFORK, f"{FOR_LONG}/Bereft.bin", batch="bereft")
    (victim,) = wait_for(lambda: running(part, "Bereft"), what="the job to run")
    os.kill(int(victim.split()[1]), signal.SIGKILL)

    def over() -> dict[str, str] | None:
        (row,) = (row for row in rows(part) if row["executor"] == victim)
        return None if row["state"] == "running" else row

    assert wait_for(over, what="the bar's end", every=0.05)["state"] == LOST
    wait_for(lambda: {row["executor"] for row in rows(part)} - before, what="another one")
    wait_for(lambda: set(running(part, "Bereft")) - {victim}, what="the job to run elsewhere")
    scene.cancel("bereft")


def test_the_balance_is_the_ledgers(scene: Scene, lanes: Page) -> None:
    scene.submit(Pool.THREADS, "/files/a.bin", "/faults/status/404/b.bin", batch="balanced")

    def balanced() -> bool:
        text = lanes.locator("#balance").inner_text()
        told = [int(number) for number in re.findall(r"\d+", text)]
        states = (JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.CANCELLED)
        counts = scene.counts()
        waiting = counts[JobState.QUEUED] + counts[JobState.WAITING]
        return " = " in text and told == [sum(counts.values()), waiting, *(counts[state] for state in states)]

    wait_for(balanced, what="the balance")
    *pools, every = ([int(cell) for cell in cells[1:]] for cells in lanes.locator("#totals tbody").evaluate(CELLS))
    assert [sum(column) for column in zip(*pools, strict=True)] == every


def test_the_tutorials_panel_grows_while_it_runs_and_is_the_ledgers(scene: Scene, lanes: Page) -> None:
    """The sum against the longest, per pool; before it ran, the command alone."""
    table, words = lanes.locator("#article"), lanes.locator("#shown")
    expect(table).to_be_hidden()
    scene.cancel_all()  # else the long jobs of other tests take the slots

    def figures() -> dict[str, list[float]]:
        found: list[list[str]] = table.locator("tbody").evaluate(CELLS)
        return {name: [float(cell.split()[0]) for cell in cells] for name, *cells in found}

    def early() -> list[str]:
        found: list[list[str]] = table.locator("tbody").evaluate(CELLS)
        return [cell for cells in found for cell in cells if "so far" in cell]

    with scene.comparing(QUICK_SEED) as producer:
        wait_for(lambda: figures().get("prefork"), what="the first pool")
        before = figures()["prefork"]
        wait_for(lambda: figures()["prefork"][1] > before[1] + 1, what="its bars to grow")
        total, longest, took = figures()["prefork"]
        assert total > longest == pytest.approx(took, abs=0.2)
        assert early(), "no proof while a file is on its way"
        expect(words).to_be_empty()
        assert producer.wait(90) == 0
    expect(words).to_have_text("prefork, threads, gevent: the total is the longest, not the sum.")
    assert early() == []
    expect(table.locator("th")).to_contain_text(["pool", "sum", "longest", "total"])
    newest = scene.ledger.batches(3)
    for pool in Pool:
        (batch,) = (name for name in newest if name.endswith(f"-{pool}"))
        ran = [record.attempts[0] for record in scene.records(batch)]
        took_each = [attempt.finished - attempt.started for attempt in ran]
        wall = max(attempt.finished for attempt in ran) - min(attempt.started for attempt in ran)
        assert figures()[pool] == pytest.approx([sum(took_each), max(took_each), wall], abs=0.3)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_is_wider_than_the_window(
    scene: Scene, browser: Browser, viewport: ViewportSize, scheme: Any, tmp_path: Path
) -> None:
    """For the eyes: FLOWER_SCREENSHOTS=folder keeps the pictures."""
    with browser.new_context(viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(f"{scene.url}/lanes")
        expect(page.locator("section.worker").nth(2)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
        for chip in page.locator(".kill code").all():
            assert chip.evaluate("chip => chip.offsetHeight") < 30, "a pid alone on its line"
        if viewport == PHONE:
            height = worker(page, scene.worker(Pool.GEVENT)).locator("canvas").evaluate("canvas => canvas.clientHeight")
            assert height < 400, "free greenlets have no row of their own"
        folder = Path(os.environ.get("FLOWER_SCREENSHOTS") or tmp_path)
        page.screenshot(path=folder / f"lanes-{viewport['width']}-{scheme}.png", full_page=True)


def test_a_click_or_enter_copies_a_command(scene: Scene, lanes: Page) -> None:
    lanes.context.grant_permissions(["clipboard-read"])
    part, pid = worker(lanes, scene.worker(Pool.THREADS)), scene.stack.processes["worker-threads"].pid
    for number in ("9", "CONT"):
        chip = part.locator("code", has_text=f"kill -{number} {pid}")
        chip.click() if number == "9" else chip.press("Enter")
        expect(lanes.locator("#copied")).to_have_text(f"copied: kill -{number} {pid}")
        assert lanes.evaluate("navigator.clipboard.readText()") == f"kill -{number} {pid}"


def test_the_bars_of_what_is_known_to_be_dead_stop_and_are_lost(scene: Scene, page: Page) -> None:
    """Given a feed without Flower behind it, where no end of a bar is heard."""
    page.add_init_script(NO_FEED)
    page.goto(f"{scene.url}/lanes")
    beats = {"old": ["threads@a", 10, 2, "threads"], "many": ["prefork@a", 20, 2, "prefork"]}
    alive: list[list[Any]] = [
        ["threads@a", "threads", "old", 10, 1],
        *(["prefork@a", "prefork", "many", pid, 1] for pid in (21, 22)),
    ]
    bars: list[dict[str, Any]] = [
        {"n": n, "worker": name, "family": family, "pid": pid, "thread": thread, "greenlet": None, "id": f"b.{n}"}
        | {"label": f"{n}.bin", "state": "running"}
        for n, (name, family, pid, thread) in enumerate(
            [("threads@a", "old", 10, 11), ("prefork@a", "many", 21, 21), ("prefork@a", "many", 22, 22)]
        )
    ]
    page.evaluate(HEAR, {"bars": bars, "workers": beats, "totals": {"jobs": {"threads": {}}, "processes": alive}})
    threads, prefork = page.locator("section.worker", has_text="threads@a").first, worker(page, "prefork@a")
    wait_for(lambda: len(running(threads, ".bin")) == 1 and len(running(prefork, ".bin")) == 2, what="the bars")

    beats["new"] = ["threads@a", 30, 2, "threads"]  # the lease of the old one goes on for some seconds
    alive = [each for each in alive if each[3] != 21] + [["threads@a", "threads", "new", 30, 0]]
    page.evaluate(HEAR, {"bars": [], "workers": beats, "totals": {"jobs": {"threads": {}}, "processes": alive}})
    expect(threads.locator("em")).to_have_text(", killed or stopped")
    wait_for(lambda: running(prefork, ".bin") == ["pid 22"] and not running(threads, ".bin"), what="what runs")

    def bar(part: Locator, name: str) -> dict[str, str]:
        return next(row for row in rows(part) if row["job"] == name)

    before = bar(threads, "0.bin")["time"], bar(prefork, "1.bin")["time"], bar(prefork, "2.bin")["time"]
    wait_for(lambda: bar(prefork, "2.bin")["time"] != before[2], what="what runs to grow")
    lost = bar(threads, "0.bin"), bar(prefork, "1.bin")
    assert [(row["state"], row["time"]) for row in lost] == [(LOST, before[0]), (LOST, before[1])]

    late = bars[0] | {"state": "lost", "end": 9e9, "note": "its worker process died"}  # the lease is over
    page.evaluate(HEAR, {"bars": [late]})
    wait_for(lambda: bar(threads, "0.bin")["result"] == "its worker process died", what="why")
    assert bar(threads, "0.bin")["time"] == before[0]
    page.evaluate(HEAR, {"bars": [bars[1] | {"state": "done", "end": 9e9, "note": "done: 5 bytes"}]})
    wait_for(lambda: bar(prefork, "1.bin")["state"] == "done", what="what is heard to be believed")


def test_the_keyboard_goes_from_lane_to_lane_and_the_page_says_where_it_is(scene: Scene, lanes: Page) -> None:
    part = worker(lanes, scene.worker(Pool.PREFORK))
    first, second = (row["executor"] for row in rows(part)[:2])
    part.locator("canvas").focus()
    lanes.keyboard.press("ArrowDown")
    expect(part.locator("output")).to_contain_text(first)
    expect(part.locator("output")).to_contain_text(f"kill -9 {first.split()[1]}")
    lanes.keyboard.press("ArrowDown")
    expect(part.locator("output")).to_contain_text(second)


def test_the_page_comes_back_by_itself(scene: Scene, page: Page) -> None:
    """Given Flower that was frozen: nothing says that a connection is dead."""
    page.goto(f"{scene.url}/lanes")
    expect(page.locator("#status")).to_contain_text("live")
    flower = scene.stack.processes["flower"]
    flower.signal(signal.SIGSTOP)
    try:
        expect(page.locator("#status")).to_contain_text("trying again", timeout=15_000)
    finally:
        flower.signal(signal.SIGCONT)
    expect(page.locator("#status")).to_contain_text("live", timeout=15_000)


def test_200_000_events_leave_a_tab_as_small_and_as_prompt_as_it_was(scene: Scene, page: Page) -> None:
    """Given a feed without Flower behind it: 100,000 jobs begin and end on 100 greenlets, 100 a message."""
    page.add_init_script(NO_FEED)
    page.goto(f"{scene.url}/lanes")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def size() -> tuple[int, int]:
        """Nodes, and bytes of the heap."""
        session.send("HeapProfiler.collectGarbage")
        figures = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
        return int(figures["Nodes"]), int(figures["JSHeapUsedSize"])

    page.evaluate(SEND, [0, 200])
    expect(page.locator("section.worker h2")).to_contain_text("gevent@load: 100 greenlets")
    page.locator(".text").evaluate("details => { details.open = true }")
    before = size()
    took = page.evaluate(SEND, [200, 1000])
    after = size()
    assert after[0] < before[0] + 2000, (before, after)
    assert after[1] < before[1] + 10_000_000, (before, after)
    assert took < 200  # milliseconds for a message and the picture after it, mostly: there are four messages a second


NO_FEED = "window.EventSource = class { constructor() { window.feed = this; } close() {} }"
HEAR = """news => {
    const now = Date.now() / 1000;
    window.began ??= now - 3;
    news.bars = news.bars.map((bar) => ({ start: window.began, ...bar }));
    window.feed.onmessage({ data: JSON.stringify({ now, ...news }) });
}"""
SEND = """async ([from, to]) => {
    const bar = (n, fields) => ({ n, worker: "gevent@load", family: "load", pid: 1, thread: 1, greenlet: n % 100,
        id: `load.${n}`, label: "a.bin from origin", start: Date.now() / 1000, state: "running", ...fields });
    const took = [];
    for (let at = from; at < to; at++) {
        for (const over of [{}, { state: "done", end: Date.now() / 1000 }]) {
            const begun = performance.now(), bars = Array.from({ length: 100 }, (_, n) => bar(at * 100 + n, over));
            const workers = { load: ["gevent@load", 1, 100] };
            window.feed.onmessage({ data: JSON.stringify({ now: Date.now() / 1000, bars, workers }) });
            if (at % 20) continue;
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            took.push(performance.now() - begun);
        }
    }
    return took.sort((a, b) => a - b)[took.length >> 1];
}"""
