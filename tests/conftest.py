"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every machine, and no bound on real time, which a busy machine misses.
settings.register_profile("noobly", deadline=None, derandomize=True)
settings.load_profile("noobly")
