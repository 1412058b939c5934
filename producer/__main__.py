"""`python -m producer`; beside `make up` it uses that stack, unless the shell says where Redis is."""

import os
import shlex
import sys
from pathlib import Path

ENV_FILE = Path(__file__).parents[1] / "run" / "stack.env"  # as stack/__main__.py writes it


def use_running_stack() -> None:
    """Take the settings from its file, except those that the shell has."""
    if "DOWNPOUR_REDIS_URL" in os.environ or not ENV_FILE.exists():
        return
    words = shlex.split(ENV_FILE.read_text(), comments=True)
    found = dict(word.split("=", 1) for word in words if word.startswith("DOWNPOUR_"))
    if not found:
        sys.exit(f"producer: `make up` is still starting, says {ENV_FILE}: wait until it prints its addresses")
    os.environ.update(found | os.environ)


try:
    use_running_stack()
    from producer.cli import main
except KeyboardInterrupt:  # before anything was begun
    sys.exit(130)

main()
