"""Brings a virtual environment to what a requirements file pins, and says so while it does.

    python3 -I stack/install.py .venv requirements/local.txt STAMP

Standard library only: it runs before anything is installed. The stamp is written when all is well; make compares
its age with the file's, so that a second run costs nothing. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

QUIET = 10.0  # seconds without news after which we say that we are still there


class InstallError(Exception):
    """Says what to do about it."""


def main() -> int:
    folder, requirements, stamp = map(Path, sys.argv[1:4])
    begun = time.monotonic()
    try:
        make_environment(folder)
        install(folder, requirements)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        print("install: interrupted; the next run goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    stamp.write_text("")
    say(f"installed in {time.monotonic() - begun:.0f} s")
    return 0


def make_environment(folder: Path) -> None:
    """An environment with pip in it; an unusable one is made anew."""
    if works(folder):
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise InstallError(f"{folder} is no virtual environment; it was left as it is. Choose another: make VENV=...")
    say(f"making {folder} with Python {sys.version.split()[0]} of {sys.executable}")
    try:
        venv.create(folder, with_pip=True, clear=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise InstallError(
            f"could not make {folder}: {error}\n"
            "On Debian and Ubuntu Python's venv is a package of its own: apt install python3-venv"
        ) from error


def works(folder: Path) -> bool:
    """Whether its Python runs and has pip; a Python that was upgraded away leaves a broken link."""
    try:
        command = [str(folder / "bin" / "python"), "-m", "pip", "--version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def install(folder: Path, requirements: Path) -> None:
    """Exactly the pinned files, each compared with its hash."""
    count = len(re.findall(r"^[\w.-]+==", requirements.read_text(), re.MULTILINE))
    say(f"installing the {count} packages of {requirements}, each checked against its hash")
    options = ["--require-hashes", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    pip = subprocess.Popen(  # noqa: S603
        [folder / "bin" / "python", "-m", "pip", "install", *options, "-r", requirements],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = follow(pip)
        if pip.wait() != 0:
            raise InstallError(f"pip failed with exit code {pip.returncode}; it said:\n{''.join(output[-30:])}")
    finally:
        pip.kill()
        pip.wait()


def follow(pip: subprocess.Popen[str]) -> list[str]:
    """Show a line per package, and a sign of life in between; everything pip said."""
    assert pip.stdout is not None  # noqa: S101
    output: list[str] = []
    news = threading.Event()
    ended = threading.Event()
    pulse = threading.Thread(target=_pulse, args=(news, ended), daemon=True)
    pulse.start()
    for line in pip.stdout:
        output.append(line)
        collecting = re.match(r"Collecting ([\w.\[\]-]+)==(\S+)", line)
        if collecting:
            say(f"  {collecting[1]} {collecting[2]}")
            news.set()
        elif line.startswith("Installing collected packages"):
            say("unpacking them")
            news.set()
    ended.set()
    news.set()
    pulse.join()
    return output


def _pulse(news: threading.Event, ended: threading.Event) -> None:
    begun = time.monotonic()
    while not ended.is_set():
        if not news.wait(QUIET):
            say(f"  ... {time.monotonic() - begun:.0f} s")
        news.clear()


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
