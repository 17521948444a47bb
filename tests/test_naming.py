"""Span names are `service.operation`, whatever is traced and wherever it is defined."""

from __future__ import annotations

import functools
import subprocess
import sys
import types
import zipapp
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tracekit import traced, traced_block
from tracekit.testing import CapturedSpans

MODULE = __name__.rpartition(".")[2]


def _defined_in(module: str, source: str) -> Any:
    """Run *source* as the code of *module* and return what it defines."""
    made = types.ModuleType(module)
    exec(source, vars(made))
    return made


def test_function_is_called_after_its_module(spans: CapturedSpans) -> None:
    orders = _defined_in("shop.orders", "from tracekit import traced\n@traced\ndef create(): pass")
    orders.create()
    assert spans.names == ["orders.create"]
    assert spans[0].attributes["code.function.name"] == "shop.orders.create"


def test_function_of_a_top_level_module_is_called_after_it(spans: CapturedSpans) -> None:
    _defined_in("orders", "from tracekit import traced\n@traced\ndef create(): pass").create()
    assert spans.names == ["orders.create"]


def test_init_of_a_package_is_called_after_the_package(
    spans: CapturedSpans, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "shop_package" / "orders"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from tracekit import traced\n@traced\ndef create(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    import_module("shop_package.orders").create()
    _defined_in("shop.__init__", "from tracekit import traced\n@traced\ndef open_shop(): pass").open_shop()
    assert spans.names == ["orders.create", "shop.open_shop"]


@pytest.mark.parametrize(
    ("class_name", "service"),
    [
        ("PaymentGateway", "payment_gateway"),
        ("HTTPClient", "http_client"),
        ("OAuth2Client", "o_auth2_client"),
        ("_Private", "_private"),
        ("Order", "order"),
        ("snake_case", "snake_case"),
        ("S3Bucket", "s3_bucket"),
    ],
)
def test_method_is_called_after_its_class(spans: CapturedSpans, class_name: str, service: str) -> None:
    module = _defined_in(
        "shop.payments",
        f"from tracekit import traced\nclass {class_name}:\n    @traced\n    def charge(self): pass",
    )
    getattr(module, class_name)().charge()
    assert spans.names == [f"{service}.charge"]


def test_method_of_a_nested_class_is_called_after_the_inner_class(spans: CapturedSpans) -> None:
    class Outer:
        class InnerPart:
            @traced
            def run(self) -> None: ...

    Outer.InnerPart().run()
    assert spans.names == ["inner_part.run"]


def test_function_defined_in_a_function_is_called_after_the_module(spans: CapturedSpans) -> None:
    @traced
    def inner() -> None: ...

    inner()
    assert spans.names == [f"{MODULE}.inner"]


def test_method_of_a_class_defined_in_a_function_is_called_after_the_class(spans: CapturedSpans) -> None:
    class LocalGateway:
        @traced
        def charge(self) -> None: ...

        @traced
        @staticmethod
        def price() -> None: ...

        @classmethod
        @traced
        def make(cls) -> None: ...

    LocalGateway().charge()
    LocalGateway.price()
    LocalGateway.make()
    assert spans.names == ["local_gateway.charge", "local_gateway.price", "local_gateway.make"]


def test_name_with_a_dot_is_used_as_it_is(spans: CapturedSpans) -> None:
    traced("orders.create")(lambda: None)()
    traced("shop.orders.create", service="ignored")(lambda: None)()
    assert spans.names == ["orders.create", "shop.orders.create"]


def test_name_without_a_dot_is_the_operation(spans: CapturedSpans) -> None:
    class Gateway:
        @traced("take_money")
        def charge(self) -> None: ...

    traced("create")(lambda: None)()
    Gateway().charge()
    assert spans.names == [f"{MODULE}.create", "gateway.take_money"]


def test_service_stands_in_front(spans: CapturedSpans) -> None:
    @traced(service="orders")
    def create() -> None: ...

    class Gateway:
        @traced(service="payments")
        def charge(self) -> None: ...

    create()
    traced("create", service="orders")(lambda: None)()
    Gateway().charge()
    assert spans.names == ["orders.create", "orders.create", "payments.charge"]


def test_service_of_a_class_stands_in_front_of_its_methods(spans: CapturedSpans) -> None:
    @traced(service="payments")
    class Gateway:
        def charge(self) -> None: ...

    Gateway().charge()
    assert spans.names == ["payments.charge"]


class Charger:
    def __call__(self) -> None: ...

    def charge(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        (functools.partial(Charger.charge, None), "charger.charge"),
        (functools.partial(functools.partial(Charger().charge)), "charger.charge"),
        (Charger(), f"{MODULE}.Charger"),
        (functools.partial(Charger()), f"{MODULE}.Charger"),
        (lambda: None, f"{MODULE}.<lambda>"),
        (Charger().charge, "charger.charge"),
    ],
)
def test_anything_callable_is_called_after_what_it_calls(spans: CapturedSpans, target: Any, operation: str) -> None:
    traced(target)()
    traced(traced(target))()
    assert spans.names == [operation, operation]


def test_block_takes_the_service_of_the_enclosing_operation(spans: CapturedSpans) -> None:
    @traced("orders.create")
    def create() -> None:
        with traced_block("validate"):
            _validate()

    create()
    assert spans.names == ["orders.rules", "orders.validate", "orders.create"]


def _validate() -> None:
    with traced_block("rules"):
        pass


def test_block_on_its_own_takes_the_calling_module(spans: CapturedSpans) -> None:
    with traced_block("validate"):
        pass
    orders = _defined_in(
        "shop.orders",
        "from tracekit import traced_block\ndef create():\n    with traced_block('validate'): pass",
    )
    orders.create()
    assert spans.names == [f"{MODULE}.validate", "orders.validate"]


def test_block_made_once_takes_the_service_of_each_use(spans: CapturedSpans) -> None:
    block = traced_block("validate")
    for service in ("orders", "payments"):
        with traced_block("outer", service=service), block:
            pass
    with block:
        pass
    inner = [name for name in spans.names if name.endswith("validate")]
    assert inner == ["orders.validate", "payments.validate", f"{MODULE}.validate"]


def test_block_with_a_dot_or_a_service_is_called_so(spans: CapturedSpans) -> None:
    with traced_block("outer.operation"):
        with traced_block("payments.charge"):
            pass
        with traced_block("charge", service="gateway"):
            pass
    assert spans.names == ["payments.charge", "gateway.charge", "outer.operation"]


_PROGRAM = """
from tracekit import traced, traced_block
from tracekit.testing import capture_spans

@traced
def work():
    with traced_block("part"):
        pass

with capture_spans() as spans:
    work()
    with traced_block("alone"):
        pass
    print(*spans.names)
"""


def _run(*arguments: str, cwd: Path) -> str:
    finished = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert not finished.stderr
    return finished.stdout.strip()


def test_script_is_called_after_its_file(tmp_path: Path) -> None:
    (tmp_path / "nightly_report.py").write_text(_PROGRAM)
    expected = "nightly_report.part nightly_report.work nightly_report.alone"
    assert _run("nightly_report.py", cwd=tmp_path) == expected
    assert _run("-m", "nightly_report", cwd=tmp_path) == expected


def test_package_that_is_run_is_called_after_itself(tmp_path: Path) -> None:
    package = tmp_path / "reports"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(_PROGRAM)
    (package / "daily.py").write_text(_PROGRAM)
    assert _run("-m", "reports", cwd=tmp_path) == "reports.part reports.work reports.alone"
    assert _run("reports", cwd=tmp_path) == "reports.part reports.work reports.alone"
    assert _run(".", cwd=package) == "reports.part reports.work reports.alone"
    zipapp.create_archive(package, tmp_path / "summary.pyz")
    assert _run("summary.pyz", cwd=tmp_path) == "summary.part summary.work summary.alone"
    assert _run("-m", "reports.daily", cwd=tmp_path) == "daily.part daily.work daily.alone"


def test_code_without_a_file_is_called_main(tmp_path: Path) -> None:
    assert _run("-c", _PROGRAM, cwd=tmp_path) == "main.part main.work main.alone"
