"""Takes a picture of lanes from a run's page: ``python -m tests.browser.lanes_picture RUN.json PICTURE.png``."""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import ViewportSize, sync_playwright

from poolbench.report.page import page
from poolbench.runfiles import read
from tests.browser.views import find, launch

WIDE = ViewportSize(width=1000, height=900)


def main() -> None:
    path = find()
    if path is None or len(sys.argv) != 3:
        sys.exit("usage: CHROMIUM=/path/to/chromium python -m tests.browser.lanes_picture RUN.json PICTURE.png")
    with sync_playwright() as playwright, launch(playwright, path) as browser:
        shown = browser.new_page(viewport=WIDE, device_scale_factor=2, color_scheme="light")
        shown.set_content(page([read(Path(sys.argv[1]))]))
        shown.add_style_tag(content=".timeline .reading { display: none }")
        shown.locator(".grid").first.screenshot(path=sys.argv[2])


if __name__ == "__main__":
    main()
