"""Flower, legible: options as in `celery flower --help`; of this file's global names Flower takes those and no others.

They win over FLOWER_* variables, so what a person may set is read here.
"""

import os

# The default columns hide which file a job is for; these tell the job's story from left to right.
tasks_columns = "kwargs,state,worker,received,started,runtime,result,retries,uuid"
natural_time = True

# About 7 KB a task: the default of 100,000 would be most of a gigabyte.
max_tasks = 10_000
# A recreated container has a new name; the old one is a ghost for this long (seconds).
purge_offline_workers = 60

# History outlives a restart.
persistent = bool(os.environ.get("FLOWER_DB"))
db = os.environ.get("FLOWER_DB", "flower")
state_save_interval = 10_000  # milliseconds

# Whoever reaches an open Flower may look and change nothing; behind a password (FLOWER_BASIC_AUTH=user:password) its
# buttons work: what each pool answers to Grow, Shrink and Terminate is part of the comparison.
read_only = not os.environ.get("FLOWER_BASIC_AUTH")
