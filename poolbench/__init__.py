"""Which pool, with what concurrency? The same jobs on several deployments, measured with rounds and intervals.

plan (``workload``) → rounds (``rounds``) → experiment (what was seen: values, JSON) → what is made of it: statistics,
advice, lanes, report. What comes after ``experiment`` is pure and reads nothing else: all of it can be made again from
the JSON. Imports nothing of Downpour.
"""
