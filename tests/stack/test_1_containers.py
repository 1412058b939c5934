"""Given `docker compose up --wait` on a machine that has Docker and nothing else; the containers are as promised."""

from __future__ import annotations

import json
import re
import shlex
import urllib.request
from typing import Any

import pytest

from ledger.settings import Settings
from tests.stack.compose_project import LASTING, PROJECT, ROOT, WORKERS, Stack, run


@pytest.fixture
def everyone(stack: Stack) -> list[tuple[str, dict[str, Any]]]:
    return [(name, container) for name, found in stack.containers().items() for container in found]


def test_up_wait_succeeds_and_every_service_is_healthy(stack: Stack) -> None:
    containers = stack.containers()
    states = {name: container["State"] for name, (container, *_) in containers.items()}
    assert set(states) == {"keys", *LASTING}
    assert {name: state["Health"]["Status"] for name, state in states.items() if name != "keys"} == dict.fromkeys(
        LASTING, "healthy"
    )
    assert (states["keys"]["Status"], states["keys"]["ExitCode"]) == ("exited", 0)
    assert [name for name, (container, *_) in containers.items() if container["RestartCount"]] == []


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = {name: found[0]["Id"] for name, found in stack.containers().items()}
    stack.up()
    assert {name: found[0]["Id"] for name, found in stack.containers().items()} == before


def test_every_role_but_redis_runs_the_same_image(everyone: list[tuple[str, dict[str, Any]]]) -> None:
    assert len({container["Image"] for name, container in everyone if name != "redis"}) == 1


def test_nobody_is_root_or_can_become_it(everyone: list[tuple[str, dict[str, Any]]]) -> None:
    for name, container in everyone:
        uid, _, gid = container["Config"]["User"].partition(":")
        assert int(uid) > 0, name
        assert int(gid) > 0, name
        host = container["HostConfig"]
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert not host["Privileged"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name


def test_the_root_file_system_is_read_only(stack: Stack, everyone: list[tuple[str, dict[str, Any]]]) -> None:
    assert [name for name, container in everyone if not container["HostConfig"]["ReadonlyRootfs"]] == []
    assert stack.compose("exec", "-T", "worker-threads", "touch", "/app/here").code != 0


def test_memory_processes_and_logs_are_limited_and_an_init_forwards_signals(
    everyone: list[tuple[str, dict[str, Any]]],
) -> None:
    for name, container in everyone:
        host = container["HostConfig"]
        assert host["Memory"] > 0, name
        assert 0 < (host["PidsLimit"] or 0) <= 1024, name
        assert host["LogConfig"]["Type"] == "json-file", name
        assert set(host["LogConfig"]["Config"]) == {"max-size", "max-file"}, name
        assert host["Init"] is True, name


def test_only_flower_and_the_origin_are_published_and_only_to_this_machine(
    everyone: list[tuple[str, dict[str, Any]]],
) -> None:
    published = {
        name: {binding["HostIp"] for bindings in ports.values() for binding in bindings or []}
        for name, container in everyone
        if (ports := container["HostConfig"]["PortBindings"])
    }
    assert published == {"flower": {"127.0.0.1"}, "origin": {"127.0.0.1"}}


def test_the_published_origin_says_what_to_submit(stack: Stack) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.settings['ORIGIN_PORT']}/", timeout=10) as answer:
        text = answer.read().decode()
    command = next(line for line in text.splitlines() if "/paced/8/a.bin'" in line)
    words = shlex.split(command)
    assert words[:5] == ["docker", "compose", "run", "--rm", "producer"]
    said = stack.producer(*words[5:])
    assert said.code == 0, said.err


def test_redis_and_the_origin_have_no_way_out_and_the_origin_no_way_to_redis(stack: Stack) -> None:
    networks = {name: set(found[0]["NetworkSettings"]["Networks"]) for name, found in stack.containers().items()}
    short = {name: {network.rpartition("_")[2] for network in has} for name, has in networks.items()}
    assert short["redis"] == {"backend"}
    assert short["origin"] == {"demo", "shown"}
    assert all(short[worker] == {"backend", "demo", "world"} for worker in WORKERS)
    # No default route: Docker gives none to a container whose networks are all internal.
    assert "00000000" not in [line.split()[1] for line in stack.inside("redis", "cat", "/proc/net/route").splitlines()]
    # What is published cannot be internal. Where addresses are not translated, no answer finds the way back.
    (shown,) = json.loads(run("docker", "network", "inspect", f"{PROJECT}_shown").out)
    assert shown["Options"]["com.docker.network.bridge.enable_ip_masquerade"] == "false"
    assert {each["Name"].split("-")[-2] for each in shown["Containers"].values()} == {"origin"}


def test_each_role_sees_its_own_password_and_no_other(stack: Stack) -> None:
    seen = {name: stack.inside(name, "sh", "-c", "cat /run/keys/*").strip() for name in ("sweep", "flower", *WORKERS)}
    assert all(len(password) >= 43 for password in seen.values())
    assert len(set(seen.values())) == 3, "one for the sweep, one for Flower, one for the three workers"
    assert stack.inside("redis", "ls", "/run/keys").split() == ["redis.conf", "users.acl"]
    assert not any(password in stack.inside("redis", "cat", "/run/keys/users.acl") for password in seen.values())


def test_no_password_stands_in_an_environment_or_a_log(stack: Stack) -> None:
    password = stack.inside("worker-gevent", "cat", "/run/keys/password").strip()
    environments = [entry for found in stack.containers().values() for entry in found[0]["Config"]["Env"]]
    assert not any(password in entry for entry in environments)
    assert password not in stack.logs()


def test_every_setting_can_be_set_and_is_documented() -> None:
    # Given the names that code reads / expect compose to pass on, and .env.example to explain, each of them.
    names = {f"DOWNPOUR_{name.upper()}" for name in Settings.model_fields}
    compose, example = (ROOT / "docker-compose.yml").read_text(), (ROOT / ".env.example").read_text()
    documented = set(re.findall(r"^#([A-Z_]+)=", example, re.MULTILINE))
    assert names - documented == set()
    assert names - set(re.findall(r"^ +(DOWNPOUR_[A-Z_]+):", compose, re.MULTILINE)) == {"DOWNPOUR_KEY_PREFIX"}
    assert set(re.findall(r"\$\{([A-Z_]+)", compose)) | {"FLOWER_BASIC_AUTH", "FLOWER_ALLOWED_HOSTS"} <= documented


def test_the_documented_defaults_are_the_real_ones() -> None:
    example = (ROOT / ".env.example").read_text()
    given = dict(re.findall(r"^#DOWNPOUR_([A-Z_]+)=(.+)$", example, re.MULTILINE))
    given["ALLOW_HOSTS"] = ""  # compose's own default is "origin"
    fields = Settings.model_fields
    parsed = Settings.model_validate({name.lower(): value for name, value in given.items()})
    for name in given:
        assert getattr(parsed, name.lower()) == fields[name.lower()].get_default(), name
