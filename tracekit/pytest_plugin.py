"""The pytest plugin: the fixture `spans`. Kept apart from tracekit.testing, so that pytest starts without the SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from tracekit.testing import CapturedSpans


@pytest.fixture
def spans() -> Generator[CapturedSpans, None, None]:
    """Capture the spans of a test: `spans.one("orders.create")`, `spans.assert_tree(...)`."""
    from tracekit.testing import capture_spans  # only where the fixture is used

    with capture_spans() as captured:
        yield captured
