"""The system's Chromium, and Flower's pages as a person reads them in it: by heading, not by place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TypeVar

from playwright.sync_api import Browser, Page, Playwright, ViewportSize, expect

from tests.waiting import wait_for

T = TypeVar("T")
VIEW = ViewportSize(width=1280, height=800)

_QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --no-proxy-server"
    " --disable-background-networking --disable-component-update --disable-sync"
)


def find() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


def launch(playwright: Playwright, path: str) -> Browser:
    return playwright.chromium.launch(executable_path=path, args=_QUIET.split(), timeout=30_000)


def until(page: Page, url: str, look: Callable[[], T], *, what: str, seconds: float = 30) -> T:
    """Load the page again and again, because most of Flower's do not do so themselves, until it shows what we want."""

    def load_and_look() -> T:
        page.goto(url)
        return look()

    return wait_for(load_and_look, seconds=seconds, every=0.3, what=what)


def tasks(page: Page) -> dict[str, dict[str, str]]:
    """The rows of the tasks page, by job, all of one moment, because the page may draw them anew at any time."""
    expect(page.locator("#tasks-table_processing")).to_be_hidden()
    expect(page.locator("#tasks-table tbody tr").first).to_be_visible()
    return {job: row for job, row in page.locator("#tasks-table").evaluate(_READ) if job}


def pool_options(page: Page) -> dict[str, str]:
    """The Pool tab of a worker's page."""
    rows = page.locator("#tab-pool tr").all()
    return {name.strip(): value.strip() for name, value in (row.locator("td").all_inner_texts() for row in rows)}


def active_tasks(page: Page) -> dict[str, dict[str, str]]:
    """The Tasks tab of a worker's page, by job."""
    page.locator("#worker-tab-tasks").click()
    table = page.locator("table", has=page.locator("caption", has_text="Active tasks"))
    expect(table).to_be_visible()
    headings = table.locator("th").all_inner_texts()
    cells = [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]
    return {row["UUID"]: row for row in (dict(zip(headings, texts, strict=True)) for texts in cells)}


_READ = """table => {
    const text = cell => cell.textContent.trim();
    const headings = [...table.tHead.rows[0].cells].map(text);
    const cells = row => Object.fromEntries([...row.cells].map((cell, at) => [headings[at], cell.innerText.trim()]));
    return [...table.tBodies[0].rows].map(row => [row.id, cells(row)]);
}"""
