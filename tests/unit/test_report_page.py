"""The page: well-formed, alone in the world, the answer first, and nothing that others wrote is markup."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from poolbench.advice import recommend
from poolbench.experiment import Deployment, Experiment
from poolbench.experiment import PoolKind as Pool
from poolbench.figures import factor
from poolbench.report.page import page, text
from tests.experiments import Made, made, remeasured
from tests.reported import HOSTILE, few, many, sweep

_VOID = {"meta", "link", "br", "img", "hr", "input"}
_LOADS = {"src", "href", "srcset", "poster", "data", "action", "xlink:href", "background"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """Its elements in their order; fails on one that is not closed."""

    source: str
    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs)
        self.elements.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str, look: str | None = None) -> list[Element]:
        return [each for each in self.elements if each.tag == tag and look in (None, each.attributes.get("class"))]


@pytest.fixture(scope="module")
def shown() -> Page:
    return Page(page([few()]))


@pytest.mark.parametrize("experiment", [few(), sweep(), made(Made(Pool.THREADS, 2, 0.1))], ids=["few", "sweep", "one"])
def test_every_element_is_closed_every_id_is_one_and_nothing_is_loaded(experiment: Experiment) -> None:
    found = Page(page([experiment]))

    ids = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    for each in found.elements:
        assert each.tag not in {"img", "iframe", "object", "embed", "video", "audio", "base", "form"}
        for name in _LOADS & set(each.attributes):
            assert str(each.attributes[name]).startswith(("#", "data:,")), each
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|WebSocket|import\(", found.source)
    assert "default-src 'none'" in found.source


def test_whoever_reads_ids_finds_them(shown: Page) -> None:
    ids = {each.attributes.get("id") for each in shown.elements}

    for each in shown.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert each.attributes.get(name) is None or each.attributes[name] in ids
        assert not (each.attributes.get("href") or "").startswith("#") or (each.attributes["href"] or "")[1:] in ids


def test_the_first_heading_is_the_answer_and_its_confidence_follows(shown: Page) -> None:
    headings = [each for each in shown.elements if re.fullmatch(r"h[1-6]", each.tag)]

    assert headings[0].tag == "h1"
    assert (
        headings[0].text
        == "gevent:8 finished the work 1.75 times sooner than threads:8 and 3.2 times sooner than prefork:4."
    )
    assert "Confidence: " in shown.source.split("</h1>")[1][:400]


def test_sentence_bars_command_and_lanes_are_open_and_in_this_order_and_the_rest_is_folded(shown: Page) -> None:
    marks = ("</h1>", 'class="badge', "<figure", 'class="command"', "<canvas", "<details", "<table")
    places = [shown.source.index(mark) for mark in marks]

    assert places == sorted(places)
    assert [each.text for each in shown.all("summary")] == ["Behind the answer", "All figures", "Can it be trusted?"]
    assert not any("open" in each.attributes for each in shown.all("details"))
    before = re.sub(r"<svg.*?</svg>", "", shown.source.partition("<body>")[2].partition("<figure")[0], flags=re.DOTALL)
    assert len(re.sub(r"<[^>]*>", " ", before).split()) < 60


@pytest.mark.parametrize("rounds", [2, 5])
def test_one_ratio_for_a_pair_wherever_it_stands(rounds: int) -> None:
    """Given two deployments, I expect their ratio in the sentence, the table, the text and the advice, and no other."""
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.7), rounds=rounds)
    (pair,) = recommend(experiment).beside
    assert pair.ratio
    ratio = factor(pair.ratio.median)

    for whole in (page([experiment]).replace("\u00a0", " "), text([experiment])):
        assert f"{pair.a} finished the work {ratio} times sooner than {pair.b}." in whole
        assert set(re.findall(r"([\d.]+) (?:×|times sooner)", whole)) == {ratio}


def test_headings_leave_no_level_out(shown: Page) -> None:
    levels = [int(each.tag[1]) for each in shown.elements if re.fullmatch(r"h[1-6]", each.tag)]

    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert {each.tag for each in shown.elements} >= {"main", "header", "footer", "section", "article"}


def test_every_deployment_has_a_row_in_each_table_and_every_table_a_caption(shown: Page) -> None:
    tables = shown.source.split("<table")[1:]
    assert len(tables) == shown.source.count("<caption>") == 2

    for table in tables:
        rows = re.findall(r'<th scope="row">(?:<svg.*?</svg>)?(.*?)</th>', table.split("</table>")[0], re.DOTALL)
        assert rows == ["serial", "prefork:4", "threads:8", "gevent:8"]


def test_a_excluded_turn_is_shown_with_its_reason(shown: Page) -> None:
    assert "Measurements that do not count" in shown.source
    assert "another process used &lt;b&gt;38\u00a0%&lt;/b&gt; of the CPU" in shown.source


def test_every_drawing_says_in_words_what_it_shows(shown: Page) -> None:
    drawings = [each for each in shown.all("svg") if each.attributes.get("role") == "img"]
    marks = [each for each in shown.all("svg") if each.attributes.get("role") != "img"]

    assert len(drawings) == 2
    assert all("threads:8" in str(each.attributes["aria-label"]) for each in drawings)
    assert all(each.attributes.get("aria-hidden") == "true" for each in marks)
    assert len(shown.all("canvas")) == 4
    assert "40 attempts on 4 processes" not in shown.source  # one of 40 jobs was tried twice
    assert "41 attempts on 4 processes" in shown.source


def test_names_that_others_wrote_are_text_wherever_they_stand(shown: Page) -> None:
    assert "alert(1)>" not in shown.source
    assert len(shown.all("script")) == 3
    assert "The clock of host &lt;b&gt; is 3\u00a0ms behind" in shown.source
    data = json.loads(next(each.text for each in shown.all("script") if each.attributes.get("id") == "timelines-1"))
    assert HOSTILE in data["names"]


def test_a_hostile_deployment_is_text_too() -> None:
    name = '"><script>alert(1)</script>'
    experiment = few()
    hostile = Deployment(name, Pool.THREADS, 8)
    renamed = remeasured(experiment, lambda of: replace(of, deployment=name), "threads:8")
    deployments = tuple(hostile if each.name == "threads:8" else each for each in experiment.deployments)

    found = Page(page([replace(renamed, deployments=deployments)]))
    assert len(found.all("script")) == 3
    assert f"Timeline of {name}" in [each.attributes.get("aria-label") for each in found.all("canvas")]


def test_ten_thousand_jobs_of_three_pools_make_a_page_below_five_million_bytes() -> None:
    found = page([many()])

    assert 1_000_000 < len(found.encode()) < 5_000_000
    assert "10,000 greenlets on 1,000 slots" in found


def test_curves_over_slots_are_drawn_where_a_pool_was_measured_with_several() -> None:
    assert "Jobs per second against concurrency" in page([sweep()])
    assert "Jobs per second against concurrency" not in page([few()])


def test_each_run_is_an_article() -> None:
    assert len(Page(page([few(), sweep()])).all("article")) == 2


def test_an_experiment_of_which_no_turn_counts_still_has_a_page_and_a_text() -> None:
    excluded = made(Made(Pool.THREADS, 8, 0.5, excluded=dict.fromkeys(range(1, 6), "load")), Made(Pool.GEVENT, 8, 0.5))
    nothing = replace(excluded, measurements=())

    for experiment in (excluded, nothing):
        assert "cannot tell" in Page(page([experiment])).all("h1")[0].text
        assert "cannot tell" in text([experiment])


# -- Markdown


def test_the_tables_of_the_text_have_as_many_cells_in_each_row() -> None:
    lines = [line for line in text([few()]).splitlines() if line.startswith("|")]

    counts = [len(re.split(r"(?<!\\)\|", line)) for line in lines]
    assert len(lines) == 6 + 6
    assert [counts[0]] * 6 == counts[:6]
    assert lines[1].startswith("| --- | ---: |")


def test_the_text_begins_with_the_answer_and_shows_the_lanes() -> None:
    lines = text([few()]).splitlines()

    assert lines[0].startswith("# gevent:8 finished the work 1.75 times sooner ")
    assert lines[2].startswith("**Confidence: ")
    assert any(re.fullmatch(r"  thread 201 +[┣━┫█┄╳ ]+", line) for line in lines)


def test_markup_in_names_stays_text_in_markdown() -> None:
    found = text([few()])

    assert r"another process used \<b\>38 %\</b\> of the CPU" in found
    assert r"- Note: The clock of host \<b\> is 3 ms behind" in found
