"""Submits a manifest to the stock app, a message per job: ``python -m chaos.stock_send FILE POOL BATCH``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from chaos.stock_app import download
from ledger.jobs import Pool, job_id


def main() -> None:
    manifest, pool, batch = Path(sys.argv[1]), Pool(sys.argv[2]), sys.argv[3]
    with manifest.open(encoding="utf-8") as lines:
        for ordinal, line in enumerate(lines):
            job = json.loads(line)
            words = (job_id(batch, ordinal), job["url"], job["filename"], job["sha256"], job["size"])
            download.apply_async(args=words, queue=pool.queue)
            if ordinal == 50:
                manifest.with_suffix(".begun").touch()


if __name__ == "__main__":
    main()
