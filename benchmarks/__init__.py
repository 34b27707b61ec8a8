"""Benchmarks, each a program: ``python -m benchmarks.NAME`` from the root, so that none shadows a standard module."""
