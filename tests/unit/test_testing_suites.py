"""The conformance suites are made of themes, none of which hides the tests of another."""

from __future__ import annotations

from collections import Counter

import pytest

from noobly.testing.caching import CacheSuite
from noobly.testing.measuring import MetricSuite
from noobly.testing.queueing import QueueSuite
from noobly.testing.working import JobSuite


@pytest.mark.parametrize("suite", [CacheSuite, QueueSuite, JobSuite, MetricSuite])
def test_no_theme_hides_the_tests_of_another(suite: type) -> None:
    names = Counter(name for theme in suite.__mro__ for name in vars(theme) if name.startswith("test_"))
    assert len(names) > 20
    assert [name for name, count in names.items() if count > 1] == []
