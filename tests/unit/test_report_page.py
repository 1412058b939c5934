"""The page: well-formed, alone in the world, the answer first, and nothing that others wrote is markup."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from rich.console import Console

from poolbench.advice import recommend
from poolbench.experiment import Deployment, Experiment
from poolbench.experiment import PoolKind as Pool
from poolbench.figures import factor
from poolbench.report.page import page, text
from poolbench.report.tables import Table, cost, speed
from poolbench.statistics import summarise
from poolbench.terminal import Page as TerminalPage
from poolbench.terminal import close
from tests.experiments import MIB, Made, made, remeasured
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


def test_markup_in_names_stays_text_in_markdown() -> None:
    found = text([few()])

    assert r"another process used \<b\>38 %\</b\> of the CPU" in found
    assert r"- Note: The clock of host \<b\> is 3 ms behind" in found


# -- tables and the terminal


def column(of: Table, deployment: str, name: str) -> str:
    """A cell's text and its note."""
    cell = next(line for line in of.lines if line.name == deployment).cells[of.columns.index(name) - 1]
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def test_memory_per_slot_has_the_processes_in_it() -> None:
    """Given four processes of 40 MiB that each need 2 MiB more for work, I expect 42 MiB per job at once, not 2."""
    of = cost(summarise(made(Made(Pool.PREFORK, 4, 0.5, idle=160 * MIB, per_slot=2 * MIB))))

    assert column(of, "prefork:4", "memory, peak") == "168 MiB (idle 160 MiB)"
    assert column(of, "prefork:4", "memory per job at once") == "42.0 MiB"


def test_of_a_deployment_without_a_turn_that_counts_nothing_is_said() -> None:
    excluded = Made(Pool.GEVENT, 4, 0.5, excluded=dict.fromkeys(range(1, 6), "a swap storm"))
    experiment = made(Made(Pool.THREADS, 4, 0.5), excluded)
    summary = summarise(experiment)

    assert column(speed(summary), "gevent:4", "all jobs took") == "–"
    assert {cell.text for line in cost(summary).lines if line.name == "gevent:4" for cell in line.cells} == {"–"}


def test_of_a_run_that_was_cut_short_in_the_warm_up_the_terminal_has_no_table() -> None:
    said = io.StringIO()
    experiment = made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2), rounds=0)
    close(TerminalPage(Console(file=said, width=80)), replace(experiment, notes=("interrupted in the warm-up",)))

    text = " ".join(said.getvalue().split())
    assert "Nothing was measured yet: only measurements of the warm-up have ended, and they do not count." in text
    assert "Note: interrupted in the warm-up." in text
    assert "0/0" not in text
    assert "jobs/s" not in text


def test_a_sentence_begins_with_a_deployment_s_name_as_it_is() -> None:
    said = io.StringIO()
    close(TerminalPage(Console(file=said, width=80)), made(Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2)))

    said_last = said.getvalue()
    assert re.search(r"^threads:8 finished the work 2.1 times sooner than gevent:8\.$", said_last, re.MULTILINE)
    assert re.search(r"^gevent:8 +█{50,} 1\.0\d s$", said_last, re.MULTILINE)
    assert "-P threads -Q downloads.threads -n threads@%h -c 8" in said_last


# -- what whoever measured noted stands once on a page: with the advice if it bears on it, or among the conditions


BEARING = (
    "the stack was running already, and may have been shared: its workers were not started for this",
    "workers run elsewhere (another machine or container): their CPU and memory are not measured",
    "serial ran 12 of the 160 jobs, chosen evenly from the lightest to the heaviest",
    "threads:8: 0 of 3 rounds count; nothing is said of it",
    "run it again when the machine is quiet, or with --noise 1 to count every turn that ran well",
    "interrupted in round 1 of 3: what was measured is here",
    "2 runs were pooled",
)
OTHERS = (
    "a stack of its own: for each turn the deployment's workers are started anew, alone, and warmed up",
    "workers run on north (its clock is 0.2 s ahead of Redis'): only when they received a job is told by their clocks",
    "a turn is excluded when strangers use much of the CPU",
    "a note that nobody has thought of",
)


@pytest.fixture(scope="module")
def noted() -> Experiment:
    deployments = (Made(Pool.PREFORK, 2, 0.5, serial=True), Made(Pool.THREADS, 8, 0.1), Made(Pool.GEVENT, 8, 0.2))
    return replace(made(*deployments), notes=(*BEARING, *OTHERS), caveats=BEARING)


def parts(whole: str, *headings: str) -> Sequence[str]:
    """What stands before the first heading, and below each of them."""
    found = []
    for heading in headings:
        before, found_it, whole = whole.partition(heading)
        assert found_it, heading
        found.append(before)
    return [*found, whole]


def as_page(experiments: Sequence[Experiment]) -> str:
    return page(experiments).replace("\u00a0", " ").replace("&#39;", "'")


@pytest.mark.parametrize(
    ("write", "headings"),
    [
        (text, ("## How it was found", "## Can it be trusted", "## Conditions")),
        (as_page, ("<h3>How it was found</h3>", "<h2>Can it be trusted", "<h3>Conditions")),
    ],
    ids=["text", "page"],
)
def test_each_note_stands_once_and_where_a_reader_looks_for_it(
    noted: Experiment, write: Callable[[Sequence[Experiment]], str], headings: Sequence[str]
) -> None:
    whole = write([noted])
    _, advice, _, conditions = parts(whole, *headings)

    for note in BEARING:
        assert whole.count(note) == 1, note
        assert note in advice, note
    for note in OTHERS:
        assert whole.count(note) == 1, note
        assert note in conditions, note
