"""Pictures: XML that a viewer opens, colours that people tell apart, and PNG that has its text."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import pytest

from poolbench.experiment import Experiment
from poolbench.figures import seconds, significant, size
from poolbench.report import charts
from poolbench.report.page import page
from poolbench.report.palette import DARK, LIGHT
from poolbench.runfiles import ReportError
from poolbench.statistics import Ends, summarise
from tests.experiments import known
from tests.reported import few, sampled, sweep, varied, with_jobs

_SVG = "{http://www.w3.org/2000/svg}"
_TEXT, _MARKS = ("ink", "muted"), ("prefork", "threads", "gevent", "serial", "wait")
CHARTS = {"bars": charts.bars, "throughput": charts.throughput}


def svg(experiment: Experiment, part: str = "bars") -> str:
    return known(CHARTS[part](summarise(experiment))).svg()


@pytest.mark.parametrize("part", CHARTS)
def test_a_chart_is_an_svg_document_with_its_own_colours_and_words(part: str) -> None:
    root = ElementTree.fromstring(svg(sweep(), part))  # noqa: S314 - ours

    assert root.tag == f"{_SVG}svg"
    assert root.findtext(f"{_SVG}title")
    assert "threads" in (root.findtext(f"{_SVG}desc") or "")
    assert "var(" not in ElementTree.tostring(root, encoding="unicode")
    assert float(root.attrib["height"]) > 100


@pytest.mark.parametrize("part", CHARTS)
def test_a_deployment_s_options_are_whole_in_each_picture(part: str) -> None:
    root = ElementTree.fromstring(svg(varied(), part))  # noqa: S314 - ours

    labels = {text.text or "" for text in root.iter(f"{_SVG}text")}
    assert any(label.endswith("+workers=16+prefetch=1000+events=off") for label in labels)
    assert any(label.endswith("+prefetch=4") for label in labels)


def test_a_line_against_slots_does_not_mix_setups() -> None:
    root = ElementTree.fromstring(svg(varied(), "throughput"))  # noqa: S314 - ours

    said = [line.partition(":") for line in (root.findtext(f"{_SVG}desc") or "").split("; ")]
    assert {name: words.count(" with ") for name, _, words in said} == {
        "threads": 2,
        "threads+prefetch=4": 2,
        "prefork+workers=2": 1,
        "gevent+workers=16+prefetch=1000+events=off": 1,
    }


def places(element: ElementTree.Element, x: float = 0.0, y: float = 0.0) -> Iterator[tuple[str, str, float, float]]:
    """Each text, its anchor, and where it is on the paper."""
    if moved := re.match(r"translate\((-?[\d.]+),(-?[\d.]+)\)", element.attrib.get("transform", "")):
        x, y = x + float(moved[1]), y + float(moved[2])
    if element.tag == f"{_SVG}text":
        x, y = x + float(element.attrib.get("x", 0)), y + float(element.attrib.get("y", 0))
        anchor = "end" if "end" in element.attrib.get("class", "").split() else element.attrib.get("text-anchor", "")
        yield element.text or "", anchor, x, y
    for below in element:
        yield from places(below, x, y)


@pytest.mark.parametrize("experiment", [sweep(), varied()], ids=["sweep", "varied"])
def test_no_drawing_leaves_its_paper(experiment: Experiment) -> None:
    for part in CHARTS:
        root = ElementTree.fromstring(svg(experiment, part))  # noqa: S314 - ours
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        found = list(places(root))
        assert found
        for text, anchor, x, y in found:
            assert 0 <= x <= width, (part, text)
            assert 0 <= y <= height, (part, text)
            if anchor == "end":
                assert x >= 5 * len(text), (part, text)


def test_png_has_twice_the_pixels_and_its_text_in_it() -> None:
    """vl-convert brings fonts of its own: a machine without any draws the same."""
    drawn = svg(few())
    blank = re.sub(r">[^<]+</text>", "></text>", drawn)

    assert charts.png(drawn) != charts.png(blank)
    assert charts.png(drawn).startswith(b"\x89PNG\r\n")
    assert struct.unpack(">I", charts.png(drawn)[16:20]) == (2000,)


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_a_chart_without_what_draws_it_is_refused_and_says_how_to_go_on(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ReportError, match=r"got none: install requirements/local.txt, or poolbench\[report\]"):
        charts.png(svg(few()))


def test_a_page_without_charts_has_all_the_rest_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "drawable", lambda: False)

    found = page([sweep()])
    assert "This page has no charts: install requirements/local.txt, or poolbench[report]." in found
    assert re.search(r"^gevent:2 +█{40,} 6\.\d\d s$", found, re.MULTILINE)
    assert found.count("<caption>") == 2
    assert found.count("<canvas") == 9


# -- the sum against the longest


def test_jobs_that_all_deployments_have_give_one_sum_and_one_longest() -> None:
    found = summarise(few())

    assert found.ends == Ends(20.0, 0.5)
    assert svg(few()).count(">longest job 500 ms<") == 1


def test_a_baseline_that_ran_some_of_the_jobs_is_not_drawn_beside_those_that_ran_all() -> None:
    found = summarise(sampled())

    assert [row.name for row in found.whole] == ["threads:8"]
    assert [row.name for row in found.rows if row.partial] == ["serial"]
    assert found.ends == Ends(20.0, 0.5)
    assert "serial ran 10 of the jobs and is not drawn" in page([sampled()])
    assert "<small>10 of the jobs</small>" in page([sampled()])


def test_jobs_that_nobody_paced_have_the_sum_of_what_they_ran_on_the_baseline() -> None:
    experiment = sampled()
    unpaced = with_jobs(
        replace(experiment, scenario=replace(experiment.scenario, nominal=())),
        lambda _, job: replace(job, nominal=None),
    )

    ends = summarise(unpaced).ends
    assert ends
    assert ends.sum == pytest.approx(20.0, rel=0.05)
    assert ends.longest == pytest.approx(0.5, rel=0.1)


# -- colours and figures


def _luminance(colour: str) -> float:
    parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_their_paper(colours: dict[str, str]) -> None:
    for paper in ("paper", "faint"):
        assert all(_contrast(colours[text], colours[paper]) >= 4.5 for text in _TEXT)
    assert all(_contrast(colours[mark], colours["paper"]) >= 3 for mark in _MARKS)
    assert all(_contrast(colours["on"], colours[pool]) >= 3 for pool in ("prefork", "threads", "gevent"))


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_pools_are_told_apart_without_red_or_green(colours: dict[str, str]) -> None:
    """As a deuteranope sees them: by the blue-yellow axis and by lightness."""
    for one, other in combinations(("prefork", "threads", "gevent"), 2):
        seen = [(_luminance(colours[pool]), int(colours[pool][5:], 16) / 255) for pool in (one, other)]
        assert max(abs(seen[0][0] - seen[1][0]) * 2, abs(seen[0][1] - seen[1][1])) > 0.15


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (seconds(0), "0 s"),
        (seconds(0.00123), "1.23 ms"),
        (seconds(0.9999), "1.00 s"),
        (seconds(12.345), "12.3 s"),
        (seconds(1234.5), "1,234 s"),
        (seconds(3e-5), "30 µs"),
        (seconds(None), "–"),
        (size(0), "0 B"),
        (size(1536), "1.50 KiB"),
        (size(250 * 2**20), "250 MiB"),
        (significant(0.000123), "0.000123"),
        (significant(999.9), "1,000"),
    ],
)
def test_figures_have_three_digits_and_no_exponent(said: str, expected: str) -> None:
    assert said == expected
