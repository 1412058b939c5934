"""Projects as others have them: a plain one, one with Django and one with Flask; written out as files.

In each the broker, the result store, or both are somebody else's: ``{theirs}`` is the address of a listener that must
never be asked. Each has packages named ``worker`` and ``producer`` that must not be taken for ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_TASKS = """
import asyncio, ctypes, os, socket, struct, time, urllib.request
from {app_module} import {shared}

@{task}
def fetch(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return len(answer.read())

@{task}
def nap(seconds, then=None):
    time.sleep(seconds)

@{task}
def compute(n):
    x = 0
    for i in range(n):
        x = (x * 31 + i) % 1000003
    return x

@{task}
def parent():
    nap.delay(30)
    return "sent"

@{task}
def loops():
    async def one():
        await asyncio.sleep(0.2)
    asyncio.run(one())

@{task}
def crashes():
    if os.getpid() != os.getppid() and "ForkPoolWorker" in __import__("multiprocessing").current_process().name + \\
            __import__("billiard").current_process().name:
        os.abort()

@{ignoring}
async def unawaited():
    return 1

@{bound}
def stubborn(self):
    raise self.retry(countdown=0, max_retries=50, exc=ValueError("never good"))

@{task}
def call_out(host, port):
    socket.create_connection((host, port), timeout=2).close()

@{task}
def look_up(name):
    socket.getaddrinfo(name, 80)

@{task}
def look_back(address):
    socket.gethostbyaddr(address)

@{task}
def datagram(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (host, port))

@{task}
def call_out_in_c(host, port):
    libc = ctypes.CDLL(None)
    s = libc.socket(2, 1, 0)
    address = struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(host))
    code = libc.connect(s, address, 16)
    libc.close(s)
    return code
"""

_DECOYS = {
    "worker/__init__.py": "raise RuntimeError('the project has a package of this name, and nobody asked for it')\n",
    "producer/__init__.py": "raise RuntimeError('the project has a package of this name, and nobody asked for it')\n",
}


def _tasks(**names: str) -> str:
    text = _TASKS
    for name, value in names.items():
        text = text.replace("{" + name + "}", value)
    return text


def plain(theirs: str, more: str = "") -> Mapping[str, str]:
    """``shop.celery``; ``more`` are further lines of its configuration."""
    app = f"""
from celery import Celery
app = Celery("shop", broker="{theirs}", backend="{theirs}", include=["shop.tasks"])
app.conf.task_routes = {{"shop.tasks.nap": {{"queue": "naps"}}, "shop.tasks.*": {{"queue": "work"}}}}
{more}
"""
    tasks = _tasks(
        app_module="shop.celery",
        shared="app",
        task="app.task",
        bound="app.task(bind=True)",
        ignoring="app.task(ignore_result=True)",
    )
    return {"shop/__init__.py": "", "shop/celery.py": app, "shop/tasks.py": tasks, **_DECOYS}


def django(theirs: str) -> Mapping[str, str]:
    """``mysite``: settings in Django's, tasks found by themselves, one that uses the database."""
    settings = f"""
from pathlib import Path
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "orders"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent / "db.sqlite3"}}}}
USE_TZ = True
CELERY_BROKER_URL = "{theirs}"
CELERY_BROKER_READ_URL = "{theirs}"
CELERY_RESULT_BACKEND = "{theirs}"
CELERY_TASK_DEFAULT_QUEUE = "orders"
CELERY_TASK_CREATE_MISSING_QUEUES = False
"""
    app = """
import os
from celery import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""
    tasks = """
from celery import shared_task
from django.db import connection

@shared_task
def count(n):
    with connection.cursor() as cursor:
        rows = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < %s)"
        cursor.execute(rows + " SELECT sum(x) FROM c", [n])
        return cursor.fetchone()[0]
"""
    return {
        "mysite/__init__.py": "from .celery import app as celery_app\n__all__ = ('celery_app',)\n",
        "mysite/settings.py": settings,
        "mysite/celery.py": app,
        "orders/__init__.py": "",
        "orders/tasks.py": tasks,
        **_DECOYS,
    }


def flask(theirs: str) -> Mapping[str, str]:
    """``make_celery``: an application factory, and tasks that run in the application's context."""
    factory = f"""
from celery import Celery, Task, shared_task
from flask import Flask, current_app

@shared_task(ignore_result=False)
def greet(name):
    return current_app.config["GREETING"] + name

def create_app():
    app = Flask("web")
    app.config.from_mapping(
        GREETING="hello ",
        CELERY=dict.fromkeys(("broker_url", "broker_write_url", "result_backend"), "{theirs}"),
    )

    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with app.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(app.name, task_cls=FlaskTask)
    celery.config_from_object(app.config["CELERY"])
    celery.set_default()
    app.extensions["celery"] = celery
    return app
"""
    made = "from web import create_app\nflask_app = create_app()\ncelery_app = flask_app.extensions['celery']\n"
    return {"web/__init__.py": factory, "make_celery.py": made, **_DECOYS}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
