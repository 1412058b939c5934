"""A certificate authority of a test's own, and a server certificate for 127.0.0.1 and good.example."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_authority(folder: Path) -> Path:
    """Writes ca.pem, server.pem and server.key into the folder."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    root = ("req", "-x509", "-subj", "/CN=ca", "-days", "2", *usage)
    _run(*root, *key, "-keyout", "ca.key", "-out", "ca.pem", folder=folder)
    _run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server", folder=folder)
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:good.example\nauthorityKeyIdentifier=keyid\n")
    sign = ("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
    _run(*sign, "-extfile", "names", "-out", "server.pem", folder=folder)
    return folder


def _run(*command: str, folder: Path) -> None:
    subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
