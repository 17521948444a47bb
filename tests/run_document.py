"""Run the Python examples of one document in this interpreter: `python run_document.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from sybil.document import Document, PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser


def run(path: Path) -> None:
    parsers = [PythonCodeBlockParser(), SkipParser()]
    if path.suffix == ".py":
        document = PythonDocStringDocument.parse(str(path), *parsers, DocTestParser())
    else:
        document = Document.parse(str(path), *parsers)
        # The examples read as one program of a reader's, in a file called orders.py.
        module = sys.modules["orders"] = ModuleType("orders")
        document.namespace = vars(module)
    for example in document:
        example.evaluate()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
