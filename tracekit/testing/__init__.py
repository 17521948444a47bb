"""
Spans in tests: `capture_spans()`, the pytest fixture `spans`, and what can be asserted of them.

What is captured goes nowhere else, whatever `configure` or the environment say, and nothing stays behind.
"""

from __future__ import annotations

from tracekit.testing.capture import capture_spans as capture_spans
from tracekit.testing.span import CapturedSpan as CapturedSpan
from tracekit.testing.spans import CapturedSpans as CapturedSpans

__all__ = ["CapturedSpan", "CapturedSpans", "capture_spans"]
