"""The documents that writers of OTLP/JSON make: requests, lists of them, what backends wrap around them, snake_case."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, cast

# Below one of these stand the spans of a trace in what a backend answers.
_WRAPPERS: Final = ("trace", "data")


def requests_in(document: object) -> Iterator[Any]:
    """
    Yield the `ExportTraceServiceRequest`s of *document*, parsed JSON, spelled as the OTLP specification spells them.

    Raises:
        LookupError: There are none.
    """
    if isinstance(document, list):
        for item in cast("list[object]", document):
            yield from requests_in(item)
        return
    if isinstance(document, dict):
        fields = cast("dict[str, object]", document)
        if "resourceSpans" in fields:
            yield fields
            return
        if "resource_spans" in fields:
            yield _in_camel_case(fields)
            return
        if "batches" in fields:
            yield {"resourceSpans": _in_camel_case(fields["batches"])}
            return
        for key in _WRAPPERS:
            if key in fields:
                yield from requests_in(fields[key])
                return
    msg = "no spans"
    raise LookupError(msg)


def _in_camel_case(value: object) -> object:
    """Return *value* with its fields in camelCase; keys of attributes are no fields but values."""
    if isinstance(value, dict):
        fields = cast("dict[str, object]", value)
        return {_camel_case(name): _in_camel_case(content) for name, content in fields.items()}
    if isinstance(value, list):
        return [_in_camel_case(item) for item in cast("list[object]", value)]
    return value


def _camel_case(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)
