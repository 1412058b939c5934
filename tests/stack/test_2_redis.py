"""Redis keeps what it accepted, refuses rather than forgets, and lets each role do its work and nothing else."""

from __future__ import annotations

import pytest

from tests.stack.compose_project import Stack


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("save", ""),
        ("maxmemory", str(2**30)),
        ("maxmemory-policy", "noeviction"),
        ("timeout", "0"),
        ("tcp-keepalive", "60"),
        ("protected-mode", "yes"),
        ("hash-max-listpack-entries", "64"),
        ("hash-max-listpack-value", "2048"),
        ("aclfile", "/run/keys/users.acl"),
    ],
)
def test_redis_is_set_as_promised(stack: Stack, setting: str, value: str) -> None:
    assert stack.redis("config", "get", setting).split("\n") == ([setting, value] if value else [setting])


def test_who_gives_no_name_is_refused(stack: Stack) -> None:
    said = stack.compose("exec", "-T", "redis", "redis-cli", "-e", "ping")
    assert said.code != 0
    assert "NOAUTH" in said.out + said.err


def test_the_health_check_needs_no_password_and_can_do_nothing_else(stack: Stack) -> None:
    cli = ("exec", "-T", "redis", "redis-cli", "-e", "--no-auth-warning", "--user", "health", "--pass", "-")
    assert stack.done(*cli, "ping").strip() == "PONG"
    for command in (("get", "dp:batches"), ("info",), ("acl", "list"), ("publish", "dp:x", "x")):
        assert "no permissions" in stack.redis("acl", "dryrun", "health", *command).lower()


@pytest.mark.parametrize("role", ["worker", "sweep", "producer", "flower"])
def test_no_role_may_do_more_than_its_work(stack: Stack, role: str) -> None:
    """Their rights are tested one by one in ``tests/service/test_rights.py``; here, that they are these."""
    # A dry run asks the rights without using them, and leaves no trace in the log of denials.
    assert "no permissions" in stack.redis("acl", "dryrun", role, "config", "get", "maxmemory").lower()
