"""`@traced`: what it can decorate, its options, its overloads."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar, cast, overload

from opentelemetry.trace import SpanKind, TracerProvider

from tracekit._diagnostics import FORGIVEN
from tracekit._naming import own_text
from tracekit._operation import Kind, Operation, Options
from tracekit._scalars import type_name
from tracekit._wrappers import operation_of, wrap
from tracekit.errors import InstrumentationError

T = TypeVar("T", bound="Callable[..., Any] | staticmethod[..., Any] | classmethod[Any, ..., Any]")


class _Decorator(Protocol):
    def __call__(self, func: T, /) -> T: ...


@overload
def traced(func: T, /) -> T: ...


@overload
def traced(
    name: str | None = None,
    /,
    *,
    service: str | None = None,
    kind: SpanKind | Kind = SpanKind.INTERNAL,
    attributes: Mapping[str, Any] | Callable[..., Mapping[str, Any]] | Iterable[Any] | None = None,
    capture: bool | Iterable[str] | None = None,
    capture_result: bool | str | Callable[[Any], Any] | Mapping[str, Any] | None = None,
    expected: type[BaseException] | tuple[type[BaseException], ...] = (),
    record_exception: bool = True,
    set_status: bool = True,
    root: bool = False,
    parent: Any = None,
    links: Any = None,
    sample: float | None = None,
    tracer_provider: TracerProvider | None = None,
    enabled: bool = True,
) -> _Decorator: ...


def traced(given: Any = None, /, **options: Any) -> Any:
    """
    Trace a callable: each call, or each run of a generator, becomes a span called `service.operation`.

    Decorates functions, coroutine functions, generator functions, async generator functions, methods, `staticmethod`
    and `classmethod` in either order, classes (each public method of their body, in place), partials, callable objects.

    Args:
        given: The callable (bare `@traced`), or a name: used as it is if it has a dot, else the operation of *service*.
        **options: Keyword options.

            - service: What stands before the dot; by default the class, else the module.
            - kind: A `SpanKind` or its name in lower case.
            - attributes: A mapping of keys to constants, `arg(...)`, `result(...)` and callables that ask for
              parameters by name; a callable returning a mapping; or a list of these.
            - capture: Names of arguments to record under their own names; True: every scalar one; False: none.
            - capture_result: True, a path into the return value, a callable, or a mapping of keys to these.
            - expected: Exception classes that are recorded but leave the status unset.
            - record_exception: Whether an exception adds an event.
            - set_status: Whether the outcome sets the status.
            - root: Start a new trace, linked to the current one.
            - parent: Continue the trace of this carrier; usually a callable that takes it from the arguments.
            - links: Carriers, contexts or spans to link to; usually a callable.
            - sample: Ratio of the traces begun here that are kept, from 0.0 to 1.0.
            - tracer_provider: Make the spans with this provider, whatever `configure` has set.
            - enabled: False returns the callable untouched.

    Raises:
        InstrumentationError: An option is wrong, or the object cannot be traced.

    Source: OpenTelemetry specification, trace/api.md#span.
    """
    _refuse_unknown(options)
    if given is None or issubclass(type(given), str):
        return functools.partial(_decorate, name=given, options=cast("Options", options))
    if options:
        msg = f"traced got {_shown(given)} together with options, expected a name. Write @traced('orders.create', ...)."
        raise InstrumentationError(msg)
    return _decorate(given, name=None, options={})


def _decorate(target: Any, *, name: str | None, options: Options) -> Any:
    if options.get("enabled", True) is False:
        return target
    # By type, here and below: what an object says of its class may be anything.
    kind = type(cast("object", target))
    if issubclass(kind, (staticmethod, classmethod)):
        return cast("Any", kind)(_decorate(target.__func__, name=name, options=options))
    if issubclass(kind, type):
        return _decorate_class(target, name, options)
    if not callable(target):
        msg = (
            f"traced got {_shown(target)}, expected a function, method, class or other callable. "
            f"Write @traced above a def."
        )
        raise InstrumentationError(msg)
    try:
        return _decorate_callable(target, name, options)
    except (InstrumentationError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the callable's own: properties, `__getattr__`, a signature
        msg = (
            f"traced got {_shown(target)}, which cannot be looked at ({type_name(type(error))}), expected a callable "
            f"that inspect can read. Write a function that calls it, and @traced above that."
        )
        raise InstrumentationError(msg) from error


def _decorate_callable(target: Any, name: str | None, options: Options) -> Any:
    if isinstance(target, classmethod):  # and is none: what others' decorators make of one
        msg = (
            f"traced got {_shown(cast('object', target))}, which only passes for a class method, expected one. "
            f"Write @traced below the decorator that made it."
        )
        raise InstrumentationError(msg)
    operation = Operation(target, name, own_text(target, "__module__") or "", options)
    traced_as = operation_of(target)
    if traced_as is not None and traced_as.name == operation.name:
        return target
    return wrap(target, operation)


def _decorate_class(cls: type[Any], name: str | None, options: Options) -> type[Any]:
    if name is not None:
        msg = f"traced got {name!r} for the class {type_name(cls)}, whose methods have names. Write service={name!r}."
        raise InstrumentationError(msg)
    methods: dict[str, Any] = {}
    body = dict(vars(cls))
    for attribute, member in body.items():
        func: object = member.__func__ if issubclass(type(member), (staticmethod, classmethod)) else member
        is_method = isinstance(func, types.FunctionType)
        if attribute.startswith("_") or not is_method or operation_of(func) is not None:
            continue
        methods[attribute] = _decorate(member, name=None, options=options)
    for attribute, method in methods.items():
        try:
            setattr(cls, attribute, method)
        except FORGIVEN as error:  # the metaclass's
            _put_back(cls, {done: body[done] for done in methods})
            msg = (
                f"traced got the class {type_name(cls)}, which refuses another {attribute!r} "
                f"({type_name(type(error))}), expected one that lets its attributes be set. "
                f"Write @traced above each method."
            )
            raise InstrumentationError(msg) from error
    return cls


def _put_back(cls: type[Any], methods: dict[str, Any]) -> None:
    for attribute, method in methods.items():
        if vars(cls).get(attribute) is not method:
            with suppress(*FORGIVEN):
                setattr(cls, attribute, method)


def _shown(given: object) -> str:
    try:
        return f"{given!r:.100}"
    except FORGIVEN:  # its `__repr__`
        return f"an object of type {type_name(type(given))}"


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    unknown = [option for option in options if option not in Options.__annotations__]
    if unknown:
        known = ", ".join(Options.__annotations__)
        msg = f"traced got the unknown option {unknown[0]!r}, expected one of: {known}."
        raise InstrumentationError(msg)
