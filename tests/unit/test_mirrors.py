"""The way through a job's URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.jobs import FailureKind, Job
from worker.mirrors import Route, headers_for

SERVER, STATUS, DISK = FailureKind.SERVER, FailureKind.STATUS, FailureKind.DISK_FULL


@pytest.mark.parametrize(
    ("kinds", "url"),
    [
        ([], "a"),
        ([SERVER], "b"),
        ([SERVER, SERVER], "c"),
        ([SERVER, SERVER, SERVER], "a"),
        ([STATUS, SERVER, SERVER], "b"),
        ([STATUS, SERVER, STATUS], "b"),
        ([None, FailureKind.LOST, DISK], "a"),
        ([SERVER, DISK], "b"),
    ],
)
def test_the_next_url_follows_from_the_attempts_so_far(kinds: list[FailureKind | None], url: str) -> None:
    assert Route("abc", kinds).url == url


def test_a_mirror_has_its_turn_at_once_and_a_second_round_a_pause() -> None:
    route = Route("ab")
    assert [route.failed(SERVER) for _ in range(4)] == [True, False, True, False]


def test_when_every_url_has_failed_for_good_nothing_is_left() -> None:
    route = Route("ab")
    route.failed(STATUS)
    assert route.may_go_on_after(STATUS)
    route.failed(STATUS)
    assert not route.may_go_on_after(STATUS)


@given(st.integers(1, 5), st.lists(st.none() | st.sampled_from(FailureKind), max_size=30))
def test_a_new_holder_is_where_the_old_one_was(count: int, kinds: list[FailureKind | None]) -> None:
    urls = [str(number) for number in range(count)]
    old = Route(urls)
    for kind in kinds:
        old.failed(kind)
    assert Route(urls, kinds).url == old.url


def test_what_is_meant_for_one_origin_is_not_shown_to_a_mirror() -> None:
    job = Job("https://a.example/f", "f", headers=(("Authorization", "secret"), ("Accept", "text/plain")))
    assert headers_for(job, job.url) == {"Authorization": "secret", "Accept": "text/plain"}
    assert headers_for(job, "https://a.example/other") == {"Authorization": "secret", "Accept": "text/plain"}
    assert headers_for(job, "https://b.example/f") == {"Accept": "text/plain"}
    assert headers_for(job, "http://a.example/f") == {"Accept": "text/plain"}
    assert headers_for(job, "nonsense") == {}


def test_a_job_s_headers_are_not_in_its_repr() -> None:
    assert "secret" not in repr(Job("https://a.example/f", "f", headers=(("Authorization", "secret"),)))
