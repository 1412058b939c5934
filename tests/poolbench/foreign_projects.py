"""Projects as others have them: a plain one, one with Django and one with Flask; written out as files.

In each the broker, the result store, or both are somebody else's: ``{theirs}`` is the address of a listener that must
never be asked. Each has packages named ``worker`` and ``producer`` that must not be taken for ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_TASKS = """
import asyncio, ctypes, os, socket, struct, time, urllib.request
import billiard
from shop.celery import app

@app.task
def fetch(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return len(answer.read())

@app.task
def nap(seconds, then=None):
    time.sleep(seconds)

@app.task
def compute(n):
    return sum(range(n))

@app.task
def parent():
    nap.delay(30)
    return "sent"

@app.task
def loops():
    async def one():
        await asyncio.sleep(0.2)
    asyncio.run(one())

@app.task
def crashes():
    if "ForkPoolWorker" in billiard.current_process().name:
        os.abort()

@app.task(ignore_result=True)
async def unawaited():
    return 1

@app.task(bind=True)
def stubborn(self):
    raise self.retry(countdown=0, max_retries=50, exc=ValueError("never good"))

@app.task
def call_out(host, port):
    socket.create_connection((host, port), timeout=2).close()

@app.task
def look_up(name):
    socket.getaddrinfo(name, 80)

@app.task
def look_back(address):
    socket.gethostbyaddr(address)

@app.task
def datagram(host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"x", (host, port))

@app.task
def call_out_in_c(host, port):
    libc = ctypes.CDLL(None)
    s = libc.socket(2, 1, 0)
    address = struct.pack("=HH4s8x", 2, socket.htons(port), socket.inet_aton(host))
    code = libc.connect(s, address, 16)
    libc.close(s)
    return code
"""

_DECOYS = {
    f"{name}/__init__.py": "raise RuntimeError('the project has a package of this name, and nobody asked for it')\n"
    for name in ("worker", "producer")
}


def plain(theirs: str, more: str = "") -> Mapping[str, str]:
    """``shop.celery``; ``more`` are further lines of its configuration."""
    app = f"""
from celery import Celery
app = Celery("shop", broker="{theirs}", backend="{theirs}", include=["shop.tasks"])
app.conf.task_routes = {{"shop.tasks.nap": {{"queue": "naps"}}, "shop.tasks.*": {{"queue": "work"}}}}
{more}
"""
    return {"shop/__init__.py": "", "shop/celery.py": app, "shop/tasks.py": _TASKS, **_DECOYS}


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
