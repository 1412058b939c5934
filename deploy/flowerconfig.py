"""Flower, legible: options as in `celery flower --help`; of this file's global names Flower takes those and no others.

They win over FLOWER_* variables, so what a person may set is read here.
"""

import ast
import os
import sys
from typing import Any

from celery import states
from celery.events.state import TASK_EVENT_TO_STATE
from flower.views.tasks import TASK_COLUMNS

sys.path.append(os.path.dirname(__file__))  # noqa: PTH120 - a Path would be one of the global names
from flower_access import guard
from lanes_page import add_to_flower

from worker.app import app as celery_app

add_to_flower()
guard()

# For queues that expire kombu needs scripts, which Flower's user in Redis may not load. Flower removes its own queues.
celery_app.conf.update(event_queue_expires=None, control_queue_expires=None)

# Progress is news of a task that has started. Celery would make a state of its own of it, "PROGRESS": missing from
# the page's "Started", and ranked so that no cancellation could follow it.
TASK_EVENT_TO_STATE["progress"] = states.STARTED

# The default columns hide which file a job is for; these tell the job's story from left to right. Not among them:
# "retries", which counts Celery's and not ours, and "received": a worker receives many messages before it begins them.
tasks_columns = "kwargs,state,worker,result,runtime,started,uuid"
TASK_COLUMNS.update(kwargs="File", started="Began", uuid="Job")  # there is no option for a heading
natural_time = True


def format_task(task: Any) -> Any:
    """What Flower shows of a task: a failed one's reason where the others have their result, and no Python around."""
    task.result = plain(task.exception if task.state == states.FAILURE else task.result)
    return task


def plain(text: str | None) -> str | None:
    """The string without its quotes, and without the error that is the worker's way to say that a job failed."""
    said = (text or "").removeprefix("JobFailedError")
    try:
        value = ast.literal_eval(said)
    except (ValueError, SyntaxError):
        return text  # it was no string: "50 %", or another error
    return value if isinstance(value, str) else text


# About 7 KB a task: the default of 100,000 would be most of a gigabyte.
max_tasks = 10_000
# A recreated container has a new name; the old one is a ghost for this long (seconds).
purge_offline_workers = int(os.environ.get("FLOWER_PURGE_OFFLINE_WORKERS", "60"))

# History outlives a restart.
persistent = bool(os.environ.get("FLOWER_DB"))
db = os.environ.get("FLOWER_DB", "flower")
state_save_interval = 10_000  # milliseconds

# An open Flower is read-only. Behind a password (FLOWER_BASIC_AUTH=user:password) its buttons work: what each pool
# answers to Grow, Shrink and Terminate is part of the comparison.
read_only = not os.environ.get("FLOWER_BASIC_AUTH")
