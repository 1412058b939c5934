"""Takes the README's picture of Flower: ``python -m tests.browser.picture docs/pictures/flower-tasks.png``."""

from __future__ import annotations

import sys

from playwright.sync_api import Page, ViewportSize, sync_playwright

from ledger.jobs import Pool
from poolbench import experiment
from producer.scenarios import ARTICLE_FILES
from tests.browser.scene import Scene
from tests.browser.views import find, launch, tasks, until

WIDE = ViewportSize(width=1580, height=900)


def main() -> None:
    path = find()
    if path is None or len(sys.argv) != 2:
        sys.exit("usage: CHROMIUM=/path/to/chromium python -m tests.browser.picture FILE.png")
    with sync_playwright() as playwright, launch(playwright, path) as browser, Scene(prefer={"origin": 8080}) as scene:
        submit(scene)
        page = browser.new_page(viewport=WIDE)
        until(page, f"{scene.url}/tasks", lambda: all_are_on_their_way(page), what="the jobs to be on their way")
        scene.cancel(Pool.GEVENT, 2)
        until(page, f"{scene.url}/tasks", lambda: states(page).count("REVOKED") == 1, what="the cancelled one")
        page.locator(".dataTables_scroll").screenshot(path=sys.argv[1])


def submit(scene: Scene) -> None:
    others = {
        Pool.PREFORK: ("/paced/25/Long_Movie.avi",),
        Pool.THREADS: ("/faults/status/404/Missing_Page.pdf", "/paced/18/Long_Movie.avi"),
        Pool.GEVENT: ("/paced/40/Unwanted_Movie.avi", "/paced/12/Long_Movie.avi"),
    }
    for pool in Pool:
        first, second = ARTICLE_FILES[experiment.PoolKind(pool)]
        scene.submit(pool, f"/paced/2/{first}", f"/paced/3/{second}", *others[pool])


def states(page: Page) -> list[str]:
    return [row["State"] for row in tasks(page).values()]


def all_are_on_their_way(page: Page) -> bool:
    seen = states(page)
    return seen.count("SUCCESS") == 6 and seen.count("STARTED") == 4


if __name__ == "__main__":
    main()
