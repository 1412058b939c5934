"""What a person sees in Flower is true, and says what it is.

The tests share one stack and go from what is there at once to what takes time; each also holds alone.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from ledger.jobs import Pool
from poolbench import experiment
from producer.scenarios import ARTICLE_FILES
from tests.browser.scene import FIRST, FLAKY, FOR_LONG, HOPELESS, LONG, LONGER, MISSING, PURGE, SECOND, TO_CANCEL, Scene
from tests.browser.views import active_tasks, pool_options, tasks, until
from tests.waiting import wait_for

MODELS = {Pool.PREFORK: "prefork:TaskPool", Pool.THREADS: "thread:TaskPool", Pool.GEVENT: "gevent:TaskPool"}
SLOTS = {Pool.PREFORK: "4 processes", Pool.THREADS: "8 threads", Pool.GEVENT: "100 greenlets"}
every_pool = pytest.mark.parametrize("pool", list(Pool), ids=str)


@pytest.fixture(scope="session")
def jobs(scene: Scene) -> Scene:
    """The scene after its jobs were submitted."""
    scene.submit_all()
    return scene


def row_of(page: Page, scene: Scene, pool: Pool, job: str, state: str) -> dict[str, str]:
    return job_of(page, scene, scene.worker(pool), job, state)


def job_of(page: Page, scene: Scene, worker: str, job: str, state: str) -> dict[str, str]:
    """Wait until the tasks page, filtered by the worker, shows the job in that state."""

    def look() -> dict[str, str] | None:
        row = tasks(page).get(job)
        return row if row and row["State"] == state else None

    found = until(page, f"{scene.url}/tasks?worker={worker}", look, what=f"{job} {state}")
    assert found is not None
    return found


def test_the_broker_page_lists_the_three_queues_at_its_first_view(scene: Scene, page: Page) -> None:
    page.goto(f"{scene.url}/broker")
    queues = page.locator("#queue-table tbody td:first-child")
    expect(queues).to_have_text(["downloads.gevent", "downloads.prefork", "downloads.threads"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_dashboard_shows_three_workers_online_with_pool_and_slots_and_cuts_nothing_off(
    scene: Scene, browser: Browser, width: int, scheme: Any, tmp_path: Path
) -> None:
    viewport = ViewportSize(width=width, height=844)
    with browser.new_context(viewport=viewport, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(scene.url)
        expect(page.locator("#workers-online")).to_have_text("3")
        expect(page.locator("#workers-table tbody tr")).to_have_count(3)
        for pool, words in SLOTS.items():
            row = page.locator("#workers-table tbody tr", has_text=scene.worker(pool))
            expect(row.locator("td").nth(1)).to_have_text("Online")
            expect(row.locator(".model")).to_have_text(f"{pool} · {words}")
            expect(row.locator(".model")).to_be_in_viewport(ratio=1)
            for cell in row.locator("td").all():
                expect(cell).to_be_in_viewport(ratio=1)
        for part in ("html", ".dataTables_scrollBody"):
            assert page.locator(part).evaluate("part => part.scrollWidth - part.clientWidth") == 0
        folder = Path(os.environ.get("FLOWER_SCREENSHOTS") or tmp_path)
        page.screenshot(path=folder / f"workers-{width}-{scheme}.png")


@every_pool
def test_a_workers_pool_tab_names_its_model(scene: Scene, page: Page, pool: Pool) -> None:
    page.goto(f"{scene.url}/worker/{scene.worker(pool)}")
    expect(page.locator("#tab-pool")).to_be_visible()
    assert pool_options(page)["Implementation"].lower() == f"celery.concurrency.{MODELS[pool]}".lower()


@every_pool
def test_a_finished_file_is_a_success_with_its_name_its_pool_and_its_time(jobs: Scene, page: Page, pool: Pool) -> None:
    for place, seconds in ((FIRST, 2), (SECOND, 3)):
        row = row_of(page, jobs, pool, f"{pool}.{place}", "SUCCESS")
        assert row["File"] == f"{ARTICLE_FILES[experiment.PoolKind(pool)][place]} from {jobs.host}"
        assert row["Worker"].startswith(f"{pool}@")
        assert seconds <= float(row["Runtime"].removesuffix(" s")) < seconds + 5
        assert re.match(r"done: 400,000 bytes in \d\.\d s", row["Result"])
        assert row["Began"].endswith("ago")


@every_pool
def test_a_job_that_cannot_succeed_is_a_failure_with_kind_and_reason(jobs: Scene, page: Page, pool: Pool) -> None:
    row = row_of(page, jobs, pool, f"{pool}.{MISSING}", "FAILURE")
    assert row["File"] == f"Missing_Page.pdf from {jobs.host}"
    assert "status: " in row["Result"]
    assert "404" in row["Result"]
    assert "JobFailedError" not in row["Result"]


@every_pool
def test_a_job_that_failed_later_on_is_no_success(jobs: Scene, page: Page, pool: Pool) -> None:
    # Given a first attempt that ended with a retry, I expect what came of it: Flower lets nothing replace a success.
    assert "server: " in row_of(page, jobs, pool, f"{pool}.{HOPELESS}", "FAILURE")["Result"]
    assert "done: " in row_of(page, jobs, pool, f"{pool}.{FLAKY}", "SUCCESS")["Result"]


@every_pool
def test_a_running_job_is_started_and_says_how_far_it_is(jobs: Scene, page: Page, pool: Pool) -> None:
    def progress() -> int | None:
        row = tasks(page).get(f"{pool}.{LONG}")
        percent = re.fullmatch(r"(\d+) %", row["Result"]) if row and row["State"] == "STARTED" else None
        return int(percent[1]) if percent else None

    started = f"{jobs.url}/tasks?state=STARTED&worker={jobs.worker(pool)}"
    before = until(page, started, progress, what=f"progress of {pool}.{LONG}") or 0
    until(page, started, lambda: (progress() or 0) > before, what=f"more than {before} %")


@every_pool
def test_the_pid_column_shows_what_runs_a_job(jobs: Scene, page: Page, pool: Pool) -> None:
    """prefork: a process each; threads: the worker's one process; gevent: a greenlet each, its number no pid."""

    def both_running() -> list[int]:
        rows = active_tasks(page)
        wanted = [f"{pool}.{LONG}", f"{pool}.{LONGER}"]
        return [int(rows[job]["PID"]) for job in wanted] if rows.keys() >= set(wanted) else []

    shown = until(page, f"{jobs.url}/worker/{jobs.worker(pool)}", both_running, what="two running jobs")
    page.locator("#worker-tab-pool").click()
    expect(page.locator("#tab-pool")).to_be_visible()
    main = int(pool_options(page)["Worker PID"])
    if pool is Pool.PREFORK:
        assert len(set(shown)) == 2
        assert {psutil.Process(pid).ppid() for pid in shown} == {main}
    elif pool is Pool.THREADS:
        assert set(shown) == {main}
    else:
        assert len(set(shown)) == 2
        assert min(shown) > int(Path("/proc/sys/kernel/pid_max").read_text())


@every_pool
def test_a_cancelled_job_is_revoked(jobs: Scene, page: Page, pool: Pool) -> None:
    job = f"{pool}.{TO_CANCEL}"
    row_of(page, jobs, pool, job, "STARTED")
    jobs.cancel(pool, TO_CANCEL)
    row = row_of(page, jobs, pool, job, "REVOKED")
    assert row["File"] == f"Unwanted_Movie.avi from {jobs.host}"
    assert "cancelled" in row["Result"]


def test_jobs_cancelled_before_they_began_are_revoked(jobs: Scene, page: Page) -> None:
    # Given more jobs than processes, When all are cancelled, I expect no success of those that only waited.
    jobs.submit(Pool.PREFORK, *(f"{FOR_LONG}/Backlog_{number}.bin" for number in range(8)), batch="backlog")
    row_of(page, jobs, Pool.PREFORK, "backlog.0", "STARTED")
    jobs.cancel("backlog")

    def all_revoked() -> bool:
        rows = tasks(page)
        backlog = [row for job, row in rows.items() if job.startswith("backlog.")]
        return len(backlog) == 8 and all("cancelled" in row["Result"] for row in backlog)

    until(page, f"{jobs.url}/tasks?state=REVOKED&worker={jobs.worker(Pool.PREFORK)}", all_revoked, what="8 revoked")


@every_pool
@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ended_leaves_no_ghost(scene: Scene, page: Page, pool: Pool, signal_: signal.Signals) -> None:
    """Neither itself, nor a job that looks as if it still ran it."""
    name, batch = f"{pool}@{signal_.name.lower()}", f"{pool}-{signal_.name.lower()}"
    worker = scene.one_more_worker(pool, name)
    scene.drain(scene.worker(pool))
    try:
        page.goto(scene.url)  # the dashboard refreshes itself
        row = page.locator("#workers-table tbody tr", has_text=name)
        expect(row).to_contain_text("Online", timeout=30_000)
        first = "/paced/3" if signal_ is signal.SIGTERM else FOR_LONG  # ends within the grace, or is killed
        scene.submit(pool, f"{first}/First.bin", f"{FOR_LONG}/Second.bin", batch=batch)
        job_of(page, scene, name, f"{batch}.1", "STARTED")
        job_of(page, scene, name, f"{batch}.0", "STARTED")
        page.goto(scene.url)
        worker.signal(signal_)
        cells = row.locator("td")
        expect(cells.nth(1)).to_have_text("Offline", timeout=30_000)
        expect(cells.nth(2)).to_have_text("0", timeout=30_000)  # active
        expect(row).to_have_count(0, timeout=(PURGE + 10) * 1000)
        job_of(page, scene, name, f"{batch}.0", "SUCCESS" if signal_ is signal.SIGTERM else "RETRY")
        job_of(page, scene, name, f"{batch}.1", "RETRY")
    finally:
        worker.kill()
        scene.cancel(batch)
        scene.undrain(scene.worker(pool))


def test_the_tasks_open_on_what_began_last_and_follow_it(scene: Scene, page: Page) -> None:
    """Given more jobs than threads, no wall of waiting ones; and without a reload the last one's end."""
    count = 20
    scene.submit(Pool.THREADS, *(f"/paced/3/Following_{n}.bin" for n in range(count)), batch="following")
    page.goto(f"{scene.url}/tasks")
    wait_for(lambda: next(iter(tasks(page).values()))["State"] == "STARTED", what="a running one first")
    ended = {f"following.{n}": "SUCCESS" for n in range(count)}
    page.locator("#tasks-table_length select").select_option("50")

    def seen() -> dict[str, str]:
        return {job: row["State"] for job, row in tasks(page).items() if job in ended}

    wait_for(lambda: seen() == ended, seconds=60, what="all of them to have ended")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_of_the_tasks_is_cut_off(jobs: Scene, browser: Browser, width: int, tmp_path: Path) -> None:
    """For the eyes: FLOWER_SCREENSHOTS=folder keeps the pictures."""
    with browser.new_context(viewport=ViewportSize(width=width, height=844)) as context:
        page = context.new_page()
        page.goto(f"{jobs.url}/tasks")
        expect(page.locator("#tasks-table tbody tr").nth(14)).to_be_visible()
        for part in ("html", ".dataTables_scrollBody"):
            assert page.locator(part).evaluate("part => part.scrollWidth - part.clientWidth") == 0
        folder = Path(os.environ.get("FLOWER_SCREENSHOTS") or tmp_path)
        if width == 1280:
            headings = page.locator(".dataTables_scrollHead th").all_inner_texts()
            wanted = ["file", "state", "worker", "result", "runtime", "began", "job"]
            assert " ".join(headings).lower().split() == wanted
        page.screenshot(path=folder / f"tasks-{width}.png")
