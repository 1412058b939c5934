"""What is done with a file before it gets its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from download import steps
from download.errors import CancelledError, StepError
from origin.content import page


@pytest.fixture
def html(tmp_path: Path) -> Path:
    file = tmp_path / "page.html"
    file.write_text(page(3, 321))
    return file


def test_links_that_are_none_do_not_count_wherever_a_piece_ends(tmp_path: Path) -> None:
    """Given tags across the ends of pieces, letters of several bytes, and rubbish, I expect just the links."""
    file = tmp_path / "odd.html"
    text = "é" * (steps.PIECE - 7) + "<a href='x'>é</a><a name=y><A HREF=z><a href=''>"
    file.write_bytes(text.encode() + b"\xff<a ")

    assert steps.run("links", file, lambda: None)[0].startswith("links: 2, ")


def test_between_pieces_it_is_asked_whether_it_may_go_on(html: Path) -> None:
    asked = 0

    def check() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise CancelledError("cancelled by request")

    with pytest.raises(CancelledError):
        steps.run("links", html, check)
    assert asked == 3 < html.stat().st_size // steps.PIECE


def test_an_unknown_step_and_a_bug_in_one_are_told_apart_from_a_broken_download(
    html: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_file: Path, _check: object) -> str:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(steps, "STEPS", {"links": steps.links, "broken": broken})

    with pytest.raises(StepError, match="expected a step out of broken, links, got 'nonsense'"):
        steps.run("nonsense", html, lambda: None)
    with pytest.raises(StepError, match="step broken: ZeroDivisionError: a bug"):
        steps.run("broken", html, lambda: None)
