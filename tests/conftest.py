"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# The same examples on every machine, and no bound on real time, which a busy machine misses.
settings.register_profile("noobly", deadline=None, derandomize=True)
settings.load_profile("noobly")

# A shell that starts the tests in the background has them ignore it, and then nothing interrupts what tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
