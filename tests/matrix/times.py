"""Seconds, all of them. The windows are the measurement; nothing else in the matrix waits for a fixed time."""

PATIENCE = 40.0  # for what must happen; only a broken machine uses it up

BODY = 4.0  # a body that is not disturbed
LONG = 60.0  # a body that nobody wants to see the end of
LIMIT = 1.0  # a time limit, soft or hard; a deadline
SOFT = 1.5  # worker_soft_shutdown_timeout, DOWNPOUR_GRACE
STOP = 2.0  # between SIGTERM and SIGKILL, as `docker stop -t 2` has it

VISIBILITY = 4.0  # visibility timeout of the broker, where it is short
REDELIVERY = 20.0  # window: a lost job must begin again within it
EXIT = 12.0  # window: a worker whose last job has ended must be gone within it
POISON = 30.0  # window in which a job that kills its process may come back
OFTEN = 4  # that many times means: for ever

UPKEEP = 10.0  # window: prefork adds the processes that pool_grow asked for every 5 s
BURN = 6.0  # of the processor, for ping, heartbeat and lease
PING = 3.0  # a ping's time limit
LEAST_BEATS = 2  # in BURN; Celery beats every 2 s
