"""``docs/settings.md`` is made from the settings class: ``python -m tests.settings_page >docs/settings.md``."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ledger.settings import Settings

HEAD = """# Settings

Every setting is an environment variable; none is required. Times are seconds, sizes are bytes. This page is made by
`python -m tests.settings_page` from the class `Settings` in `ledger/settings.py`. Do not edit it.

With Docker, copy [.env.example](../.env.example) to `.env` and uncomment lines. It also has the variables of the stack
itself: ports, concurrency, memory limits, the downloads folder and its owner. Without Docker:
`make up ARGS="--set DOWNPOUR_LEASE=10"`. Both allow the demo's origin; `make up` sets a grace of 2 s.

| variable | default | meaning |
|---|---|---|"""


def page() -> str:
    rows = [
        f"| `DOWNPOUR_{name.upper()}` | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([HEAD, *rows, ""])


def _default(field: FieldInfo) -> str:
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if isinstance(value, frozenset):
        value = ",".join(map(str, sorted(value)))
    if value in (None, ""):
        return "–"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
