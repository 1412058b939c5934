"""What producer, workers and sweep share: the contract (``jobs``), the settings, and the truth in Redis.

Both sides import this package; it imports neither.
"""

__version__ = "0.1"
