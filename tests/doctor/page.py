"""``docs/doctor.md`` is made from the table of checks: ``python -m tests.doctor.page >docs/doctor.md``."""

from __future__ import annotations

from poolbench.doctor.diagnosis import CHECKS, SEVERITIES, Check

HEAD = """# The doctor

`poolbench doctor -A shop.celery` asks the live workers of a Celery project, and their broker, for settings that do not
do what they seem to. It sends no task and changes nothing: it asks by remote control, as `celery inspect` does, and
reads. This page is made by `python -m tests.doctor.page` from `poolbench/doctor/checks.toml`. Do not edit it.

```sh
poolbench doctor -A shop.celery                     # where the project can be imported
poolbench doctor -A shop.celery --grace 10          # docker stop waits 10 s: are tasks longer?
poolbench doctor -A shop.celery --skip R03 --json   # losing what a killed worker runs is fine here
```

| exit code | |
|---|---|
| 0 | nothing found |
| 1 | findings |
| 2 | it could not ask: the app cannot be imported, the broker is away, or no worker answers |

Run it on the host of the workers, or in their container. Options of a worker's command line are invisible to remote
control: the doctor reads them from the process. What it cannot see it lists under *Not checked*, and why.
Each check has a sick project in which it is found and a healthy one in which it is not, both with real workers
(`tests/service/test_doctor.py`). The last line of each check is the command that measures its evidence again.
"""

NOT_CHECKED = """
## Not checked

| | because |
|---|---|
| D02: SIGTERM goes to the process group | no process can see how its supervisor will signal it |
| D03: `inspect ping` as a health check without `-d` | the platform's configuration has it; see P08, P10 and D07 |
| eventlet | Celery deprecates it, and nothing was measured with it |
| RabbitMQ and other brokers | only Redis and Valkey were measured; such checks are listed as not made |
"""


def page() -> str:
    parts = [HEAD]
    for severity, meaning in SEVERITIES.items():
        parts.append(f"\n## {severity.capitalize()}: {meaning}\n")
        parts += [_section(check) for check in CHECKS.values() if check.severity == severity]
    return "".join([*parts, NOT_CHECKED])


def _section(check: Check) -> str:
    redis = " On Redis and Valkey only." if check.redis else ""
    return f"""
### {check.code} {check.title}

{check.why}{redis}

*Evidence:* {check.evidence}

*Mend:* {check.mend}

*Again:* `{check.again}`
"""


if __name__ == "__main__":
    print(page(), end="")
