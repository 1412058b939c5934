"""What kombu does for each message beyond what the ledger needs, left out; and a worker that survives Redis' death.

kombu notes in Redis which messages a worker has in hand: two transactions per message, a quarter of what a small job
costs. The ledger knows it already (``worker.incarnation`` touches them every second), and the sweep sends again what
vanished. So here they are noted in memory alone. It also ends what could freeze in kombu's books when Redis restarts,
and an ``AttributeError`` that ended a worker whose connection Redis had closed.
"""

from __future__ import annotations

from kombu.transport import virtual


class BooksInMemory(virtual.QoS):  # type: ignore[misc]
    def restore_unacked(self) -> None:
        """Put what was not begun back on its queue, in front, the oldest first. What cannot be, the sweep sends."""
        self._flush()
        if self.channel.connection.client is not None:  # else closed: nothing to put them back through
            with self.channel.conn_or_acquire() as client:
                for message in reversed(self._delivered.values()):
                    info = message.delivery_info
                    self.channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], client)
        self._delivered.clear()


def keep_books_in_memory() -> None:
    """Before any connection to the broker is made. Goes with the transport option ``ack_emulation`` off."""
    virtual.QoS = BooksInMemory
