"""Redis' passwords and who may do what, made on the spot: no secret is in the repository or in an image.

    python deploy/keys.py DIR

``DIR/ROLE/password``    one per role, random, kept for as long as DIR lives; each role is shown only its own folder
``DIR/redis/users.acl``  what Redis loads; it has hashes of the passwords, never the passwords
``DIR/redis/redis.conf`` a copy, so that the server reads everything from one folder

Run again it keeps the passwords and writes the rest anew. It needs Python and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from pathlib import Path

PREFIX = "dp:"  # of every key and channel: DOWNPOUR_KEY_PREFIX

# What any client says on its connection.
CONNECT = "+auth +hello +ping +select +client|setinfo"
# Celery's transport, sending and receiving. Commands inside a script are checked too, so the ledger's are listed below.
SEND = "+multi +exec +watch +unwatch +lpush +llen +sadd +srem +smembers +time"
RECEIVE = (
    "+brpop +rpush +hset +hget +hdel +get +set +del +zadd +zrem +zrange +zrangebyscore +zrevrangebyscore +zcard"
    " +evalsha +script|load +script|exists +publish +subscribe +unsubscribe +psubscribe +punsubscribe"
)
LEDGER = (
    "+evalsha +script|load +script|exists +time +multi +exec +exists +type +del +unlink +expire +get +set"
    " +hset +hsetnx +hget +hmget +hgetall +hdel +hexists +hincrby +hincrbyfloat"
    " +sadd +srem +smembers +scard +spop +srandmember"
    " +zadd +zrem +zcard +zscore +zrange +zrevrange +zrangebyscore"
    " +llen +lpush +rpush +lpop +sismember +info"
)
TAKE = "+rpop +hvals"  # of the ledger's, what only a worker does: more messages at once off its queue
OURS = f"~{PREFIX}* &{PREFIX}*"
DEAD_LETTERS = f"~{PREFIX}dead-letters:*"
# A subscription to a pattern is compared with these letter by letter; "/0." is the database's number.
EVENTS_AND_CONTROL = f"&{PREFIX}/0.celeryev/worker.* &{PREFIX}/0.celeryev/* &{PREFIX}/0.celery.pidbox"
FLOWERS_OWN = " ".join(
    f"~{PREFIX}{name}"
    for name in (
        "_kombu.binding*.celeryev",
        "_kombu.binding*.pidbox",
        "celeryev.*",
        "*.reply.celery.pidbox*",
        "nothing",
    )
)
FLOWER = "+multi +exec +sadd +srem +smembers +llen +brpop +del +hdel +psubscribe +punsubscribe +subscribe +unsubscribe"

ROLES = {
    "admin": "~* &* +@all",  # a person, with the password from the folder; no service is shown it
    "worker": f"{OURS} {EVENTS_AND_CONTROL} -@all {CONNECT} {SEND} {RECEIVE} {LEDGER} {TAKE} (+ltrim {DEAD_LETTERS})",
    # It tells Flower of worker processes that died, in events of Celery's, and may publish nothing else.
    "sweep": f"~{PREFIX}* &{PREFIX}/0.celeryev/task.multi -@all {CONNECT} {LEDGER} +publish",
    # The producer listens when it compares.
    "producer": f"{OURS} -@all {CONNECT} {LEDGER} +waitaof +subscribe +unsubscribe (+lrange {DEAD_LETTERS})",
    # It hears events, asks the workers by remote control and takes their answers off queues of its own, and counts what
    # waits. It sees no record and no message; what its API would submit is refused.
    "flower": f"{FLOWERS_OWN} &{PREFIX}/0.celeryev/* -@all {CONNECT} {FLOWER} (+publish &{PREFIX}/0.celery.pidbox)"
    f" (+llen %R~{PREFIX}downloads.*)",
}
# "default" is the user of a client that has given no name, and "off" refuses it. It still needs all rights: Redis
# replays its log as this user, and without them it would silently drop every transaction and every script's effect.
# "health" may ask whether Redis answers, and needs no password.
OTHERS = (
    "user default reset off ~* &* +@all",
    "user health reset on nopass +ping",
)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python deploy/keys.py DIR")
    make_keys(Path(sys.argv[1]))


def make_keys(folder: Path) -> None:
    """Bring the folder to what this file says; passwords that exist stay."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [*OTHERS]
    for role, rights in ROLES.items():
        digest = hashlib.sha256(password(folder / role).encode()).hexdigest()
        lines.append(f"user {role} reset on #{digest} {rights}")
    redis = folder / "redis"
    redis.mkdir(mode=0o755, exist_ok=True)
    # Redis is another user than we: these two files hold no secrets and are readable for all.
    publish(redis / "users.acl", "\n".join(lines) + "\n", mode=0o644)
    publish(redis / "redis.conf", Path(__file__).with_name("redis.conf").read_text(), mode=0o644)


def password(folder: Path) -> str:
    """The role's password; made if this is the first time."""
    folder.mkdir(mode=0o750, exist_ok=True)
    file = folder / "password"
    if not file.exists():
        publish(file, secrets.token_urlsafe(32) + "\n", mode=0o640)
    return file.read_text().strip()


def publish(file: Path, text: str, mode: int) -> None:
    """Whole or not at all: a start that is cut short leaves no empty password behind."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(file)


if __name__ == "__main__":
    main()
