"""How many jobs a message carries where the producer chooses."""

from ledger.jobs import Job, Pool
from producer.client import _messages, growing


def sizes(jobs: int) -> list[int]:
    manifest = (Job(f"http://h/{n}", str(n)) for n in range(jobs))
    return [len(message.jobs) for message in _messages("b", manifest, [Pool.THREADS], 0)]


def test_a_short_manifest_is_one_job_per_message() -> None:
    assert sizes(60) == [1] * 60


def test_a_long_manifest_costs_few_messages_and_none_is_a_large_part_of_it() -> None:
    found = sizes(100_000)
    assert sum(found) == 100_000
    assert len(found) < 700
    assert max(found) == 250
    assert found == sorted(found[:-1]) + found[-1:]
    done = 0
    for size in found:
        assert size <= max(1, done / 32)
        done += size


def test_the_same_place_gives_the_same_message() -> None:
    assert [growing(before) for before in (0, 63, 64, 8000, 10**6)] == [1, 1, 2, 250, 250]
