"""What the README tells people to type exists, and what it says of settings is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ledger.settings import Settings
from producer.cli import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z]+)", README))))
def test_each_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "command", sorted(set(re.findall(r"(?:run --rm (?:-T )?producer|`producer) ([a-z-]+)", README)))
)
def test_each_producer_command_exists(command: str) -> None:
    assert command in cli.commands


@pytest.mark.parametrize("name", sorted(set(re.findall(r"DOWNPOUR_([A-Z_]*[A-Z])", README))))
def test_each_setting_exists(name: str) -> None:
    assert name.lower() in Settings.model_fields


def test_the_defaults_in_the_table_are_the_defaults() -> None:
    said = {
        "max_attempts": r"`DOWNPOUR_MAX_ATTEMPTS` `DOWNPOUR_DEADLINE` \| (\d+),",
        "deadline": r"`DOWNPOUR_MAX_ATTEMPTS` `DOWNPOUR_DEADLINE` \| \d+, (\d+) s",
        "read_timeout": r"`DOWNPOUR_READ_TIMEOUT` `DOWNPOUR_LOW_SPEED` \| (\d+) s",
        "low_speed": r"`DOWNPOUR_READ_TIMEOUT` `DOWNPOUR_LOW_SPEED` \| \d+ s, (\d+) byte",
        "lease": r"`DOWNPOUR_LEASE` \| (\d+) s",
        "grace": r"`DOWNPOUR_GRACE` `STOP_GRACE_PERIOD` \| (\d+) s",
    }
    for field, pattern in said.items():
        match = re.search(pattern, README)
        assert match, field
        assert float(match[1]) == Settings.model_fields[field].default, field


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_each_linked_file_is_there(path: str) -> None:
    assert (ROOT / path).exists()
