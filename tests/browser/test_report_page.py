"""The report's page as a person has it: from a file, on a phone and on a desk, by day and by night."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from poolbench.experiment import Experiment
from poolbench.report.page import page as made_page
from tests.reported import few, many, sweep, varied

PHONE, DESK = ViewportSize(width=390, height=844), ViewportSize(width=1280, height=800)

Show = Callable[..., Page]

# How many different colours a canvas has; one: nothing is drawn.
_COLOURS = """canvas => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data, seen = new Set();
    for (let n = 0; n < data.length; n += 4) seen.add(data[n] << 16 | data[n + 1] << 8 | data[n + 2]);
    return seen.size;
}"""
_PIXELS = 'canvas => canvas.toDataURL("image/png")'
_OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    made: dict[str, Experiment] = {"few": few(), "sweep": sweep(), "many": many(), "varied": varied()}
    for name, experiment in made.items():
        (folder / f"{name}.html").write_text(made_page([experiment]))
    return {name: folder / f"{name}.html" for name in made}


@pytest.fixture
def show(browser: Browser, files: dict[str, Path]) -> Iterator[Show]:
    """Opens a report; nothing but the file itself may be asked for, and nothing may be complained about."""
    contexts, asked, said = [], [], []

    def open_(name: str, viewport: ViewportSize = DESK, scheme: str = "light", *, touch: bool = False) -> Page:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, has_touch=touch)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(files[name].as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:,", "blob:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(contexts)
    assert said == []


def canvases(page: Page) -> list[Locator]:
    return page.locator("canvas").all()


def point_at(page: Page, canvas: Locator, x: float, y: float) -> tuple[float, float]:
    """Pixels of the page for a place on a canvas that is scrolled into view."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    return box["x"] + x * box["width"], box["y"] + y


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", ["few", "sweep", "many", "varied"])
def test_nothing_is_wider_than_the_window_and_every_timeline_is_drawn(
    show: Show, name: str, viewport: ViewportSize, scheme: str
) -> None:
    page = show(name, viewport, scheme)

    assert page.evaluate(_OVERFLOW) == 0
    found = canvases(page)
    assert len(found) == {"few": 4, "sweep": 9, "many": 3, "varied": 6}[name]
    for canvas in found:
        assert canvas.evaluate(_COLOURS) > 4
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_sentence_bars_and_command_are_on_the_first_screen(show: Show, viewport: ViewportSize) -> None:
    page = show("few", viewport)

    for first in ("h1", "figure.drawn svg:visible", ".command"):
        expect(page.locator(first).first).to_be_in_viewport(ratio=1)
    expect(page.get_by_text("Confidence:")).to_be_in_viewport(ratio=1)


def test_pointing_at_a_bar_shows_its_moments_and_pointing_away_hides_them(show: Show) -> None:
    page = show("few")
    canvas = page.get_by_label("Timeline of threads:8")
    tip = page.locator("#tip")

    expect(tip).to_be_hidden()
    page.mouse.move(*point_at(page, canvas, 0.24, 50))
    expect(tip).to_be_visible()
    for word in (
        "thread 201 of threads:8@host, pid 200",
        "enqueued",
        "received",
        "started",
        "first byte",
        "finished",
        "waited",
        "step",
    ):
        expect(tip).to_contain_text(word)
    page.mouse.move(*point_at(page, canvas, 0.95, 50))
    expect(tip).to_be_hidden()


def test_a_tap_shows_a_bar_on_a_phone(show: Show) -> None:
    page = show("few", PHONE, touch=True)

    page.touchscreen.tap(*point_at(page, page.get_by_label("Timeline of serial"), 0.6, 52))
    expect(page.locator("#tip")).to_contain_text("pid 101 of serial@host")
    assert page.evaluate(_OVERFLOW) == 0


def test_the_keyboard_goes_from_job_to_job_and_says_where_it_is(show: Show) -> None:
    page = show("few")
    canvas = page.get_by_label("Timeline of prefork:4")
    told = page.locator(".told")

    canvas.focus()
    page.keyboard.press("ArrowDown")
    expect(told).to_contain_text("pid 101")
    expect(told).to_contain_text("started 0.000 s")
    page.keyboard.press("ArrowRight")
    expect(told).not_to_contain_text("started 0.000 s")
    page.keyboard.press("ArrowDown")
    expect(told).to_contain_text("pid 102")
    page.keyboard.press("Escape")
    expect(page.locator("#tip")).to_be_hidden()


def test_zooming_one_timeline_zooms_all_and_all_shows_everything_again(show: Show) -> None:
    page = show("few")
    span = page.locator(".span")
    before, pictures = span.inner_text(), [canvas.evaluate(_PIXELS) for canvas in canvases(page)]

    page.get_by_role("button", name="Zoom in").click()
    expect(span).not_to_have_text(before)
    for canvas, picture in zip(canvases(page), pictures, strict=True):
        assert canvas.evaluate(_PIXELS) != picture
    canvas = page.get_by_label("Timeline of gevent:8")
    canvas.focus()
    page.keyboard.press("0")
    expect(span).to_have_text(before)
    page.keyboard.press("+")
    expect(span).not_to_have_text(before)
    zoomed = span.inner_text()
    x, y = point_at(page, canvas, 0.7, 60)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    expect(span).not_to_have_text(zoomed)


def test_a_thousand_lanes_scroll_in_their_frame(show: Show) -> None:
    page = show("many")
    canvas = page.get_by_label("Timeline of gevent:1000")
    top = canvas.evaluate(_PIXELS)

    scroll = page.locator(".scroll").nth(2)
    assert scroll.evaluate("frame => frame.scrollHeight > 4 * frame.clientHeight")
    scroll.evaluate("frame => { frame.scrollTop = 900 }")
    page.wait_for_function("top => document.querySelectorAll('canvas')[2].toDataURL() !== top", arg=top)
    assert canvas.evaluate(_COLOURS) > 4
    page.mouse.move(*point_at(page, canvas, 0.2, 100))
    expect(page.locator("#tip")).to_contain_text(
        re.compile(r"slot \d+: greenlet \d+ of gevent:1000@host, pid 300, thread 300")
    )


def test_ten_thousand_jobs_are_drawn_in_a_blink(show: Show) -> None:
    page = show("many")

    took = page.evaluate("""() => new Promise((done) => {
        const begin = performance.now();
        document.querySelector("[data-do=in]").click();
        requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - begin)));
    })""")
    assert took < 1000  # milliseconds, on two cores that others use too


def test_what_a_hostile_name_says_is_read_and_not_run(show: Show) -> None:
    page = show("few")

    page.get_by_label("Timeline of prefork:4").focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator("#tip strong")).to_have_text(re.compile(r"^</script><script>alert"))
    assert page.locator("#tip img").count() == 0


def test_paper_is_white_by_night_too_and_has_every_list_open(show: Show) -> None:
    page = show("few", DESK, "dark")

    dark = canvases(page)[0].evaluate(_PIXELS)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert canvases(page)[0].evaluate(_PIXELS) != dark
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("details:not([open])").count() == 0
    expect(page.locator(".controls")).to_be_hidden()
    page.set_viewport_size(ViewportSize(width=690, height=1000))
    assert page.evaluate(_OVERFLOW) == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_every_timeline_is_there_in_words(browser: Browser, files: dict[str, Path]) -> None:
    with browser.new_context(viewport=PHONE, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(files["few"].as_uri())

        expect(page.get_by_text("41 attempts on 4 processes")).to_be_visible()
        expect(page.locator(".controls")).to_be_hidden()
