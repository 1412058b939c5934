"""Brings a virtual environment to what a requirements file pins, and says so while it does.

    python3 -I stack/install.py .venv requirements/local.txt STAMP

Standard library only: it runs before anything is installed. The stamp is written when all is well; make compares
its age with the file's, so that a second run costs nothing. Interrupted, it goes on where it was.
"""

from __future__ import annotations

import sys

try:
    import re
    import select
    import subprocess
    import time
    import venv
    from pathlib import Path
except KeyboardInterrupt:  # before anything was begun
    sys.exit(130)

# pip says Processing instead of Collecting if the file of a package is here already, e.g. in a folder of wheels.
COLLECTING = re.compile(rb"Collecting ([\w.\[\]-]+)==(\S+)")
PROCESSING = re.compile(rb"Processing (?:\S*/)?([\w.]+)-(\d[^-\s]*?)(?:-\S*\.whl|\.tar\.gz|\.zip)")
QUIET = 10.0  # seconds without news after which a line shows that pip is still at work


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
    try:
        # A Python that was upgraded away leaves a broken link.
        command = [str(folder / "bin" / "python"), "-m", "pip", "--version"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:  # noqa: S603
            return
    except OSError:
        pass
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


def install(folder: Path, requirements: Path) -> None:
    """Exactly the pinned files, each compared with its hash; a line per package, and one after each quiet time."""
    count = len(re.findall(r"^[\w.-]+==", requirements.read_text(), re.MULTILINE))
    say(f"installing the {count} packages of {requirements}, each checked against its hash")
    options = ["--require-hashes", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", *options, "-r", str(requirements)]
    begun, output, collected = time.monotonic(), [b""], 0
    # Without a buffer: select knows nothing of lines that lie in one.
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as pip:
        assert pip.stdout is not None  # noqa: S101
        try:
            while True:
                if not select.select([pip.stdout], [], [], QUIET)[0]:
                    say(f"  ... {time.monotonic() - begun:.0f} s")
                    continue
                line = pip.stdout.readline()
                if not line:
                    break
                output.append(line)
                if package := package_of(line):
                    collected += 1
                    say(f"  {collected} of {count}: {package}")
                elif line.startswith(b"Installing collected packages"):
                    say("unpacking them, which takes about as long")
        except BaseException:
            pip.kill()
            raise
    if pip.returncode != 0:
        said = b"".join(output[-30:]).decode(errors="replace")
        raise InstallError(f"pip failed with exit code {pip.returncode}; it said:\n{said}")


def package_of(line: bytes) -> str | None:
    """Name and version of the package that pip begins with this line."""
    found = COLLECTING.match(line) or PROCESSING.match(line)
    return found and b" ".join(found.groups()).decode()


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
