"""The prose of ``docs/chaos.md``; the numbers come from the reports."""

from __future__ import annotations

from chaos.downpour import Downpour
from chaos.faults import CUT_AFTER
from chaos.mix import DESCRIPTION
from chaos.run import LEASE, SETTLE
from chaos.schedule import SHARES, Kind
from ledger.settings import Settings
from stack.plan import CONCURRENCY

MESSAGE_GRACE = float(Settings.model_fields["message_grace"].default)
_SIZES = ", ".join(f"{pool} {count}" for pool, count in CONCURRENCY.items())

INTRODUCTION = f"""
# Chaos, measured

This page is made by `python -m chaos table` from the reports in `docs/chaos/`. Do not edit it.

Workers of all three pools, the sweep, the producer and Redis are killed while thousands of jobs wait and run. Then
somebody who had no part in it balances the books: every file on disk is hashed again, the origin's access log is
counted, every record is read with `producer results`, and Redis is searched for what was left behind.

- **Load**: {DESCRIPTION}. A producer in the background keeps the queues of all pools full while the faults go on.
- **Deployment**: the Procfile's commands with their default settings (lease {LEASE:g} s), two workers per pool
  ({_SIZES} jobs at once), a sweep, Redis' log on disk as deployed (`appendfsync everysec`). What ends is started again
  after 0.1 s, as a container runtime does it.
- **Faults**, in an order and at victims that follow from the seed, per hundred kills: {SHARES[Kind.WORKER]} times
  SIGKILL to a worker with all its children, {SHARES[Kind.CHILD]} to one prefork child, {SHARES[Kind.MAIN]} to the main
  process of prefork alone, {SHARES[Kind.TWO]} to both workers of a pool at once, {SHARES[Kind.CUT_SHORT]} times SIGTERM
  and SIGKILL {CUT_AFTER:g} s later, {SHARES[Kind.SWEEP]} kills of the sweep, {SHARES[Kind.REDIS]} of Redis, and
  {SHARES[Kind.PRODUCER]} of the producer in the middle of a submission, followed by the same command again. On top of
  them {SHARES[Kind.FROZEN]} freezes (SIGSTOP for {LEASE + 2:g} to {LEASE + 4:g} s, longer than the lease, then SIGCONT)
  and {SHARES[Kind.STOPPED]} orderly stops.
- **Beside it** a stock Celery app: the same download function in a plain task, the same jobs, the same faults, the same
  supervision; scaled down. Its books are marks that each task leaves in a file, so they survive everything that is
  killed here. *default* is Celery out of the box; *late ack* adds `acks_late` and `reject_on_worker_lost`; *tuned* adds
  prefetch 1, a visibility timeout of 20 s (twice the longest job, and some), restored every second, and the polling
  interval without which an idle gevent worker restores nothing.
"""

ABOUT_BOOKS = f"""
*Lost*: no end within {SETTLE:g} s after the queues were empty, with every worker up and nothing else to do; less if no
message and no running job was left that could still bring one. *`unacked`*: messages that no queue has and nobody runs;
some of them belong to lost jobs, and come back after the visibility timeout, an hour by default, if a worker looks.
(Downpour needs none.) *Done twice*: more than one successful end in the subject's own notes; *resubmitted*: in a
batch whose producer was killed, or failed while Redis was away, and was run again, which a plain `apply_async` loop
cannot know. *Wrong or changed*: not the bytes that it must have; a file of a job without an end; another inode, size or
time of writing than when the file's batch was first seen to be finished. *Failed*: the record says so, with a kind;
`poison` is a job whose holder was killed five times, which is what that limit is for. Temp files of the stock app are
not Celery's fault: nothing in it knows which are abandoned. In Downpour each worker removes those of ended jobs every
half minute; they are counted after {Downpour.tidies_within:g} s.
"""

ABOUT_RECOVERY = """
A job counts as interrupted when the process that ran it was hit. The clock starts at the signal (of a stop that is cut
short: at its SIGKILL). *Back on its queue* is when the ledger closes the lost attempt and puts the job back; *running
again* is when the next attempt is claimed. Both are Redis' clock, which here is also the clock of who sends the signal.
Between the two the job's message stands in front of all that waits, until a worker of its pool takes it and has a free
slot for it. For the stock app only the second is known.
"""

TRUST = f"""
- *Running again* has in it how long a worker takes to start, some seconds of CPU: with both workers of a pool killed
  nobody is there before. And a message that was on its way to a worker which is killed in turn is missed only after
  {MESSAGE_GRACE:g} s more; with a kill every few seconds that happens, and it makes the maxima.
- *Sent to their last byte more than once* is an upper bound of work done twice: the origin counts what the kernel took,
  and a small file is in a socket's buffer before a killed client could have read it.
- Jobs interrupted by *child killed* and *main process killed* are few because most jobs last milliseconds.
- A fault in the seconds before a kill of Redis is recovered later by as long as Redis was away: nobody is judged for
  what he could not do. That is in the numbers.
- All of it ran on one small machine that had other work (see the load average), with one clock and no network. The
  moments of the faults are not repeatable, only their order is.
- The stock runs are short. A zero in them is not a promise.
"""

REPRODUCE = """
```sh
make chaos                                  # the large run, and this page: about 25 minutes
make chaos-short                            # some 20 kills, as a test: two minutes and a half
python -m chaos run --seed 1 --kills 40 --jobs 8000 --out docs/chaos/downpour-40.json
python -m chaos stock --profile tuned --seed 1 --kills 40 --jobs 8000 --out docs/chaos/stock-tuned.json
python -m chaos table docs/chaos/*.json >docs/chaos.md
```

The exit code is 1 if the books do not balance. `--evidence DIR` keeps every log if anything is wrong.
"""
