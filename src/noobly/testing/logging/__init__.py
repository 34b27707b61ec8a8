"""The conformance suite of logging: what every provider must do, seen through ``Logs``.

    class TestMine(LogsSuite):
        @pytest.fixture
        def harness(self) -> Harness:
            return Embedded("mine://")

``noobly.testing.logging.driver`` has the suite for the bare provider.
"""

import pytest

# Before the suite is imported, so that its asserts explain themselves.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("driver", "lines", "suite")))

from noobly.testing.logging.suite import Embedded, Harness, LogsSuite

__all__ = ["Embedded", "Harness", "LogsSuite"]
