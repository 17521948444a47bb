"""What span records keep of a span, made here or read back from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tracekit
from tracekit.view.reading import read_trace_file

if TYPE_CHECKING:
    from pathlib import Path


def test_a_span_read_back_keeps_its_kind_its_resource_and_its_scope(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    with (
        tracekit.configure(service="shop", version="1.2", exporter=f"file:{path}"),
        tracekit.traced_block("orders.fetch", kind="client"),
    ):
        pass
    (span,) = read_trace_file(path).spans
    assert (span.kind, span.service, span.resource["service.version"]) == ("client", "shop", "1.2")
    assert span.scope.split()[0] == "tracekit"
