"""The demo's file server: seeded files, an exact pace, and four failures to look at.

It uses the standard library only. The demo, the tests, the chaos runs and the benchmarks download from it;
the tests add their faults to it in `tests/hostile_origin`.
"""
