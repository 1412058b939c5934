"""How fast, beside what people would use instead. ``make bench``; results and how to read them: docs/benchmarks.md."""
