"""Run the hostile origin; the options are those of `python -m origin`."""

from origin.__main__ import main
from tests import hostile_origin  # noqa: F401 - importing it adds the faults

main()
