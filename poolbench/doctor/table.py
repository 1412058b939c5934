"""All checks, in the order of the page."""

from poolbench.doctor import broker_checks, message_checks, pool_checks
from poolbench.doctor.diagnosis import CHECKS

__all__ = ["CHECKS", "broker_checks", "message_checks", "pool_checks"]
