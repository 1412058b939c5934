"""urllib3's connections, made interruptible, pinned to judged addresses, and strict about framing.

Four things differ from the originals, and nothing else does:

1. A name is resolved once, every address must pass the policy, and the socket goes to a judged one.
   SNI, Host and the certificate stay with the name.
2. Each wait on a socket (resolve, connect, TLS, headers, body) is cut into slices by ``Watch``.
3. An answer that ends inside its headers, or whose framing cannot be trusted, is an error.
4. TLS that ends without a goodbye is told apart from an end: it may be a cut.

The same code serves processes, threads and gevent's patched sockets.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import socket
import ssl
import threading
import time
from collections.abc import Buffer, Callable
from typing import Any

import urllib3.connection
from urllib3.util import wait_for_read, wait_for_write

from worker.addresses import Address, Policy, Target
from worker.errors import ConnectError, DnsError, DownloadError, ProtocolError, RefusedError, TruncatedError
from worker.watch import Watch
