"""SHA-256 of whole entities: computed once, in a thread, and remembered."""

import asyncio
import threading
from collections import OrderedDict

from origin.content import BLOCK_BYTES, Entity

REMEMBERED = 4096


class Digests:
    """A bounded memory of digests; whoever asks for the same entity shares one computation."""

    def __init__(self) -> None:
        """Start with an empty memory."""
        self._known: OrderedDict[Entity, bytes] = OrderedDict()
        self._running: dict[Entity, asyncio.Task[bytes]] = {}
        self._stopped = threading.Event()

    def peek(self, entity: Entity) -> bytes | None:
        """Return the digest if it is known or costs next to nothing, otherwise None."""
        digest = self._known.get(entity)
        if digest is not None:
            self._known.move_to_end(entity)
        elif entity.size <= BLOCK_BYTES:
            # A thread switch would cost more than hashing one block.
            digest = self._remember(entity, entity.sha256())
        return digest

    async def get(self, entity: Entity) -> bytes:
        """Return the digest, computing it in a thread if it is not known yet."""
        digest = self.peek(entity)
        if digest is not None:
            return digest
        task = self._running.get(entity)
        if task is None:
            task = asyncio.create_task(self._compute(entity))
            self._running[entity] = task
        # A client that leaves must not cancel the computation that others wait for.
        return await asyncio.shield(task)

    def stop(self) -> None:
        """End running computations, so that the process can exit at once."""
        self._stopped.set()

    async def _compute(self, entity: Entity) -> bytes:
        try:
            return self._remember(entity, await asyncio.to_thread(entity.sha256, self._stopped))
        finally:
            del self._running[entity]

    def _remember(self, entity: Entity, digest: bytes) -> bytes:
        self._known[entity] = digest
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return digest
