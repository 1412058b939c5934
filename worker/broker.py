"""A way around kombu: a worker must survive that Redis is killed.

When Redis closes the connection under a worker that has unacknowledged messages, kombu closes the channel, tries to put
them back through a connection that it has let go of already, and ends the worker with an ``AttributeError`` (celery
ignores connection errors only). The ledger does not need them back: the sweep sends what vanished again.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import redis


class ForgetfulQoS(redis.QoS):  # type: ignore[misc]
    def restore_unacked(self, client: Any = None) -> Any:
        if self.channel.connection.client is None:  # closed already: nothing to put them back through
            self._delivered.clear()
            return None
        return super().restore_unacked(client)


def survive_a_closed_connection() -> None:
    """Before any connection to the broker is made."""
    redis.Channel.QoS = ForgetfulQoS
