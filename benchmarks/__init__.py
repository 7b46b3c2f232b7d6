"""Measures meshdns beside other servers, in one run: `python -m benchmarks --help`; docs/performance.md has the method."""
