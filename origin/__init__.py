"""The origin: a file server whose files are seeded, whose pace is exact and whose faults are chosen by path.

The demo, the tests and the benchmarks download from it. It uses the standard library only, and its
HTTP/1.1 is written by hand because a fault needs control over each byte.
`origin/files.py` lists the well-behaved paths, `origin/faults/__init__.py` the others.
"""
