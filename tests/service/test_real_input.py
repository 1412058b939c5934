"""Real input: a tree none of us wrote, behind a server none of us wrote, checked by tools none of us wrote."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from ledger.jobs import Pool
from tests.producer_process import finish, run, start
from tests.waiting import wait_for
from tests.world import World


def copy_of_the_standard_library(to: Path) -> Path:
    """As it is installed, without what running it leaves behind and without what others installed into it."""
    ignore = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "config-*", "lib-dynload")
    shutil.copytree(sysconfig.get_path("stdlib"), to, ignore=ignore, copy_function=os.link, symlinks=False)
    for empty in [path for path, folders, files in os.walk(to, topdown=False) if not folders and not files]:
        Path(empty).rmdir()  # HTTP knows no empty folders
    return to


@contextmanager
def http_server(folder: Path, log: Path) -> Iterator[str]:
    """``python -m http.server`` on a port of its choice."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        line = wait_for(log.read_text, what="http.server to say its port")
        yield f"http://127.0.0.1:{line.split(' port ')[1].split()[0]}"
    finally:
        process.kill()
        process.wait(10)


def write_manifest(tree: Path, url: str, to: Path) -> int:
    """From ``sha256sum``'s output; returns the number of files."""
    found = subprocess.run(
        ["find", ".", "-type", "f", "-exec", "sha256sum", "-z", "{}", "+"],
        cwd=tree, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    rows = [line.split("  ./", 1) for line in found.stdout.split("\0") if line]
    with to.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["url", "filename", "sha256"])
        writer.writerows((f"{url}/{quote(name)}", name, digest) for digest, name in rows)
    return len(rows)


@pytest.mark.timeout(280)
def test_the_standard_library_arrives_byte_identical_through_all_three_pools(tmp_path: Path) -> None:
    tree = copy_of_the_standard_library(tmp_path / "original")
    with http_server(tree, tmp_path / "server.log") as url, World(tmp_path) as world:
        count = write_manifest(tree, url, tmp_path / "manifest.csv")
        assert count >= 1000
        world.start(*Pool, slots=4)
        words = ["submit", "-i", str(tmp_path / "manifest.csv"), "--pool", "all", "--name", "stdlib", "--wait"]
        done = finish(start(world.settings, *words), seconds=240)
        assert done.code == 0, done.out[-2000:] + done.err[-2000:]
        assert f"{count:,}" in done.out + done.err

        results = run(world.settings, "results", "stdlib", "--format", "jsonl")
        rows = [json.loads(line) for line in results.out.splitlines()]
        assert [row["outcome"] for row in rows] == ["done"] * count
        assert {row["worker"].partition("@")[0] for row in rows} == set(Pool)

        arrived = world.settings.downloads / "stdlib"
        same = subprocess.run(["diff", "-r", tree, arrived], capture_output=True, text=True, timeout=60)
        assert (same.returncode, same.stdout) == (0, "")
        world.check_files(world.records("stdlib"))
