"""Processes of the tests end with the test run, however that ends."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Sequence

_SETPRIV = shutil.which("setpriv")  # of util-linux


def tied(argv: Sequence[str]) -> list[str]:
    """
    The command as one that the kernel kills when its parent has ended. On other kernels, the command itself; and so in
    other threads than the main one: the kernel takes the end of the *thread* that started it for that of the parent.
    """
    if _SETPRIV is None or os.getpid() != threading.get_native_id():
        return list(argv)
    return [_SETPRIV, "--pdeathsig", "KILL", *argv]
