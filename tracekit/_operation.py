"""All that is known of an operation before it is called: its name, kind, fixed attributes and compiled options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Literal, Protocol, TypeAlias, TypedDict, cast, final

from opentelemetry.trace import SpanKind, TracerProvider

from tracekit._attributes import AttributeValue, attribute_value, put
from tracekit._config import Settings, runtime, tracer_of
from tracekit._extraction import Extraction
from tracekit._naming import named, own_text, span_name
from tracekit._ratio import ratio_of
from tracekit._semconv import CODE_FILE_PATH, CODE_FUNCTION_NAME, CODE_LINE_NUMBER
from tracekit.errors import InstrumentationError

Kind: TypeAlias = Literal["internal", "server", "client", "producer", "consumer"]

_KINDS: Final = {kind.name.lower(): kind for kind in SpanKind}


class Options(TypedDict, total=False):
    """
    The keyword options `@traced` and `traced_block` share; each is described at `traced`.

    `is_full_name` is for spans that a convention names: no service stands in front.
    """

    is_full_name: bool

    service: str | None
    kind: SpanKind | str
    attributes: Any
    capture: Any
    capture_result: Any
    expected: Any
    record_exception: bool
    set_status: bool
    root: bool
    parent: Any
    links: Any
    sample: float | None
    tracer_provider: TracerProvider | None
    enabled: bool


@final
class Operation:
    """
    One traced operation: options checked and compiled, ready to start spans.

    Args:
        func: The callable; None for a block.
        name: The name given, if any.
        module: Where it is defined, if *func* does not say.
        options: The keyword options as given.

    Raises:
        InstrumentationError: An option is malformed or asks for what *func* does not have.
    """

    __slots__ = (
        "_given",
        "_is_full_name",
        "begin",
        "expected",
        "extraction",
        "func",
        "gate",
        "kind",
        "links",
        "name",
        "parent",
        "plan",
        "provider",
        "records_exception",
        "root",
        "sample",
        "sets_status",
    )

    def __init__(self, func: Callable[..., Any] | None, name: str | None, module: str, options: Options) -> None:
        self._given = (func, name, module, options)
        self.func = func
        self._is_full_name = options.get("is_full_name", False)
        self.name = name if self._is_full_name and name else _checked_name(func, name, module, options.get("service"))
        self.kind = _checked_kind(options.get("kind", SpanKind.INTERNAL), self.name)
        self.expected = checked_exceptions(options.get("expected", ()), f"expected of {self.name}")
        self.records_exception = options.get("record_exception", True)
        self.sets_status = options.get("set_status", True)
        self.root = options.get("root", False)
        self.sample = options.get("sample")
        if self.root and options.get("parent") is not None:
            msg = f"{self.name} got both root=True and parent=, expected one. Write links= to keep the connection."
            raise InstrumentationError(msg)
        self.provider = _checked_provider(options.get("tracer_provider"), self.name)
        # Asked before each call whether it is to be traced; None for always.
        self.gate: Callable[[], bool] | None = None
        checked_options(options, self.name)
        self._compile()
        self.plan = Plan(self, None, runtime.settings)
        # What begins a call as `_span.start` does, on a shorter way; None: there is none.
        self.begin: Begin | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Compiled again where it arrives: closures do not travel, what was given does. The name was settled here, where
        # `__main__` is the script's.
        func, _, module, options = self._given
        return (Operation, (func, self.name, module, options))

    def __repr__(self) -> str:
        return f"Operation({self.name!r})"

    def _compile(self) -> None:
        options = self._given[3]
        self.extraction = Extraction(
            self.func, self.name, options.get("attributes"), options.get("capture"), options.get("capture_result")
        )
        parent, links = options.get("parent"), options.get("links")
        self.parent = None if parent is None else self.extraction.option(parent, "parent")
        self.links = None if links is None else self.extraction.option(links, "links")
        for key, value in self.extraction.constants.items():
            if attribute_value(value, 1) is None:
                msg = (
                    f"attributes[{key!r}] of {self.name} got {value!r}, expected a string, number, bool, a sequence of "
                    f"these, or an extractor. Write str(...) or a lambda."
                )
                raise InstrumentationError(msg)

    @property
    def service(self) -> str:
        """What stands before the last dot of the name, for blocks inside to take over; empty where it has none."""
        return "" if self._is_full_name else self.name.rpartition(".")[0]

    @property
    def is_simple(self) -> bool:
        """Whether its spans are children of the current span, whatever its arguments are."""
        return not (self.root or self.parent or self.links or self.sample is not None or self.gate)

    def settle(self) -> Plan:
        """Return the plan under what is set up now."""
        state, settings = runtime.state, runtime.settings
        provider = self.provider or runtime.provider
        plan = self.plan
        if plan.provider is not provider or plan.settings is not settings:
            plan = self.plan = Plan(self, provider, settings)
        # The global provider may be set at any time, without a word to us: then each call asks.
        plan.is_settled = self.provider is not None or runtime.is_set
        plan.state = state
        return plan

    def fixed_attributes(self, settings: Settings) -> dict[str, AttributeValue]:
        """Return what every span of this operation has at its start."""
        attributes: dict[str, AttributeValue] = {}
        if self.func is not None:
            attributes.update(code_attributes(self.func, with_location=settings.code_location))
        for key, value in self.extraction.constants.items():
            put(attributes, key, value, settings.redactor, settings.string_limit, self.name)
        return attributes


@final
class Plan:
    """
    What the calls of one operation do, under one provider and settings.

    Args:
        operation: What is called.
        provider: Makes its spans; None: there are none.
        settings: The settings to go by.
    """

    __slots__ = (
        "fixed",
        "is_settled",
        "kind",
        "name",
        "operation",
        "provider",
        "reading",
        "reads_result",
        "sets_status",
        "settings",
        "state",
        "tracer",
    )

    def __init__(self, operation: Operation, provider: TracerProvider | None, settings: Settings) -> None:
        self.operation: Final = operation
        self.name: Final = operation.name
        self.kind: Final = operation.kind
        self.provider: Final = provider
        self.settings: Final = settings
        self.tracer: Final = None if provider is None else tracer_of(provider)
        # `runtime.state` as long as this plan is right; where it is not settled, a new global provider changes it too.
        self.state: object = None
        self.is_settled = False
        self.fixed: Final = {} if self.tracer is None else operation.fixed_attributes(settings)
        self.reading: Final = operation.extraction.reading(settings, is_needed=self.tracer is not None)
        self.sets_status: Final = operation.sets_status
        self.reads_result: Final = operation.extraction.reads_result


class Begin(Protocol):
    """What begins a call, as `tracekit._span.start` does."""

    def __call__(
        self, operation: Operation, values: tuple[Any, ...], attributes: Mapping[str, Any] | None = None, /
    ) -> Any: ...


def code_attributes(func: Callable[..., Any], *, with_location: bool) -> dict[str, AttributeValue]:
    """
    Return where *func* is defined.

    Source: semantic conventions, code/code-spans.md.
    """
    target = named(func)
    module, qualname = own_text(target, "__module__"), own_text(target, "__qualname__")
    attributes: dict[str, AttributeValue] = {CODE_FUNCTION_NAME: ".".join(part for part in (module, qualname) if part)}
    code = getattr(inspect.unwrap(target), "__code__", None)
    if with_location and code is not None:
        attributes[CODE_FILE_PATH] = code.co_filename
        attributes[CODE_LINE_NUMBER] = code.co_firstlineno
    return attributes


def checked_exceptions(given: object, option: str) -> tuple[type[BaseException], ...]:
    """
    Return *given*, an exception class or several, as a tuple.

    Raises:
        InstrumentationError: It is something else.
    """
    kinds = cast("tuple[object, ...]", given) if isinstance(given, (tuple, list)) else (given,)
    checked = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseException))
    if len(checked) != len(kinds):
        msg = f"{option} got {given!r}, expected exception classes. Write expected=(NotFound,)."
        raise InstrumentationError(msg)
    return checked


def _checked_name(func: Callable[..., Any] | None, name: object, module: str, service: object) -> str:
    for option, value, example in (("name", name, "orders.create"), ("service", service, "orders")):
        if value is not None and (not isinstance(value, str) or not value.strip(". ")):
            msg = f"{option} got {value!r}, expected a non-empty string. Write {example!r}."
            raise InstrumentationError(msg)
    target = None if func is None else named(func)
    return span_name(
        cast("str | None", name),
        service=cast("str | None", service),
        module=own_text(target, "__module__") or module,
        qualname=own_text(target, "__qualname__") or "block",
    )


def _checked_kind(given: object, name: str) -> SpanKind:
    kind = given if isinstance(given, SpanKind) else _KINDS.get(given.lower()) if isinstance(given, str) else None
    if kind is None:
        shown = given.name if isinstance(given, Enum) else repr(given)
        msg = f"kind of {name} got {shown}, expected one of {', '.join(_KINDS)}. Write kind='client'."
        raise InstrumentationError(msg)
    return kind


def _checked_provider(given: object, name: str) -> TracerProvider | None:
    if given is None or isinstance(given, TracerProvider):
        return given
    msg = f"tracer_provider of {name} got {given!r}, expected a TracerProvider. Write configure(provider=...)."
    raise InstrumentationError(msg)


def checked_options(options: Mapping[str, Any], name: str) -> None:
    """
    Refuse switches that are not bools, and a ratio that is none.

    Raises:
        InstrumentationError: An option has the wrong type.
    """
    for switch in ("record_exception", "set_status", "root", "enabled"):
        value = options.get(switch, True)
        if not isinstance(value, bool):
            msg = f"{switch} of {name} got {value!r}, expected True or False. Write {switch}=True."
            raise InstrumentationError(msg)
    if (ratio := options.get("sample")) is not None:
        ratio_of(ratio, f"sample of {name}", "sample=0.01", InstrumentationError)
