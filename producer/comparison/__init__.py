"""HEART 3: the same jobs on several deployments, measured so that a difference can be believed.

plan (scenarios, offers) → rounds (who has a turn when) → measure (one turn) → experiment (what was seen: values, JSON)
→ what is made of it: statistics, verdict, timeline, trace, report, advice. What comes after ``experiment`` is pure and
reads nothing else, so whoever has the JSON can make all of it again.
"""
