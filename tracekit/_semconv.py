"""
The attribute and event names tracekit writes, spelled as the OpenTelemetry semantic conventions spell them.

Names of our own begin with `tracekit.` (or `generator.`, where no convention exists).
"""

from __future__ import annotations

from typing import Final

CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_FILE_PATH: Final = "code.file.path"
CODE_LINE_NUMBER: Final = "code.line.number"
ERROR_TYPE: Final = "error.type"

EVENT_EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"

EVENT_CANCELLED: Final = "cancelled"
GENERATOR_ITEMS: Final = "generator.items"
RETURN_VALUE: Final = "return_value"
TRACEKIT_INCOMPLETE: Final = "tracekit.incomplete"
