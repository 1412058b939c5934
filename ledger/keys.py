"""Every key in Redis that Downpour writes, and who lives there.

Scripts build the keys of the jobs they touch from the prefix, so the ledger needs a single Redis, not a cluster.

===========================  ======  ==============================================================================
key (after the prefix)       type    content
===========================  ======  ==============================================================================
job:BATCH.N                  hash    one record; fields in ``records``
batch:BATCH                  hash    counters ``<pool><state>`` by letter, bytes ``<pool>b``; ``created``, ``sealed``,
                                     ``ended`` (when the last job did so far), ``deadline``, ``pruning``
batch:BATCH:running          set     ids of its running jobs
batch:BATCH:names            hash    filename → ordinal, where servers name files
batches                      zset    batch names by creation time
sent:POOL                    zset    refs of messages that lie on the queue, in its order
hand:POOL                    zset    refs of messages that may be in somebody's hand, by when that was last known
resend:POOL                  list    ids of queued jobs that need a message now
due                          zset    ids of waiting jobs by due time
deadlines                    zset    ids of jobs that were claimed and are not final, by when their time is used up
paused                       set     pools whose jobs stay queued for now
drained                      set     names of workers that take nothing new
unwell                       hash    worker → fault of its machine, JSON, while it takes nothing new; ``worker.machine``
suspects:POOL                zset    ids of queued jobs that may have killed their process, the next to be tried first
trial:POOL                   hash    the one of them that was let run: ``id``, and ``since`` when it has, ledger clock
incarnations                 hash    incarnation id → what process it is, JSON
leases                       hash    incarnation id → its end, ms of the ledger clock; or how it ended: ended, died
held:INCARNATION             set     ids of the jobs it runs
cancel:INCARNATION           set     ``ID NUMBER`` of those of its claims that should stop
host:HOST                    hash    its quiet and its rate; with :slots :queue :woken, see ``lua/host_limits.lua``
hosts                        set     hosts that jobs wait for
clock                        hash    the ledger clock: ``shift`` against Redis' own, ``last`` moment, ``gap``, all in ms
dead                         set     incarnations whose jobs are being taken over
downloads.POOL               list    Celery's queue
dead-letters:POOL            list    what lay on the queue and is no message of ours, newest first; ``dead_letters``
===========================  ======  ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.jobs import Pool


@dataclass(frozen=True, slots=True)
class Keys:
    prefix: str

    def job(self, id_: str) -> str:
        return f"{self.prefix}job:{id_}"

    def batch(self, name: str) -> str:
        return f"{self.prefix}batch:{name}"

    def running(self, batch: str) -> str:
        return f"{self.prefix}batch:{batch}:running"

    def names(self, batch: str) -> str:
        return f"{self.prefix}batch:{batch}:names"

    @property
    def batches(self) -> str:
        return f"{self.prefix}batches"

    def sent(self, pool: Pool) -> str:
        return f"{self.prefix}sent:{pool}"

    def hand(self, pool: Pool) -> str:
        return f"{self.prefix}hand:{pool}"

    def resend(self, pool: Pool) -> str:
        return f"{self.prefix}resend:{pool}"

    def queue(self, pool: Pool) -> str:
        return f"{self.prefix}{pool.queue}"

    def dead_letters(self, pool: Pool) -> str:
        return f"{self.prefix}dead-letters:{pool}"

    def events(self, routing_key: str, database: int) -> str:
        """The channel of Celery's events; kombu writes the database's number into its name."""
        return f"{self.prefix}/{database}.celeryev/{routing_key}"

    @property
    def due(self) -> str:
        return f"{self.prefix}due"

    @property
    def paused(self) -> str:
        return f"{self.prefix}paused"

    @property
    def drained(self) -> str:
        return f"{self.prefix}drained"

    @property
    def unwell(self) -> str:
        return f"{self.prefix}unwell"

    @property
    def incarnations(self) -> str:
        return f"{self.prefix}incarnations"

    @property
    def leases(self) -> str:
        return f"{self.prefix}leases"

    def held(self, incarnation: str) -> str:
        return f"{self.prefix}held:{incarnation}"

    @property
    def hosts(self) -> str:
        return f"{self.prefix}hosts"

    @property
    def dead(self) -> str:
        return f"{self.prefix}dead"
