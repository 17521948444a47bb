"""
What one operation records of its arguments and its result: options checked and compiled when decorating.

What is compiled here runs in `_reading`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeAlias, cast, final

from tracekit._attributes import attribute_items, put, put_scalar
from tracekit._config import Settings
from tracekit._diagnostics import FORGIVEN, forgive
from tracekit._extractors import Path, follow
from tracekit._parameters import Parameters
from tracekit._reading import Attributes, FreeReader, Reading, ValueReader, Values
from tracekit._redaction import REDACTED
from tracekit._semconv import RETURN_VALUE
from tracekit.errors import InstrumentationError

_ResultReader: TypeAlias = Callable[[Any, Settings, Attributes], None]

# Of the extra keyword arguments: a span's fixed attributes must not be dropped for them.
_MAX_KEYWORDS: Final = 64
_WHOLE: Final = "attributes"
_ALL: Final = slice(None)


@final
class Extraction:
    """
    The compiled attribute options of one operation.

    Args:
        func: The callable; None for a block.
        name: The span name, for messages.
        attributes: A mapping of keys to constants, paths and extractors, a callable returning one, or a list of these.
        capture: Names of arguments; True: every scalar one; False: none; None: as the settings say.
        capture_result: True, a path, a callable, or a mapping of keys to paths and callables.

    Raises:
        InstrumentationError: An option is malformed or asks for what the callable does not have.
    """

    __slots__ = ("_argument_readers", "_by_default", "_name", "_result_readers", "constants", "parameters")

    def __init__(
        self,
        func: Callable[..., Any] | None,
        name: str,
        attributes: object = None,
        capture: object = None,
        capture_result: object = None,
    ) -> None:
        self._name = name
        self.parameters = Parameters(func)
        self.constants: dict[str, Any] = {}
        self._argument_readers: list[ValueReader | FreeReader] = []
        self._result_readers: list[_ResultReader] = []

        for part in self._parts(attributes):
            if callable(part):
                self._argument_readers.append(self._whole(part))
            else:
                for key, value in cast("Mapping[str, object]", part).items():
                    self._add(key, value)
        for parameter, key in self.parameters.marked.items():
            self._argument_readers.append(self._path(key, Path(parameter, of_result=False)))
        self._add_captured(capture)
        self._add_result(capture_result)
        self._by_default = capture is None and attributes is None and not self.parameters.marked

    @property
    def reads_result(self) -> bool:
        """Whether the return value is asked for anything."""
        return bool(self._result_readers)

    def reading(self, settings: Settings, *, is_needed: bool = True) -> Reading:
        """Return how the arguments of a call are read under *settings*."""
        readers = self._argument_readers
        if self._by_default and settings.capture_arguments:
            readers = [*self._scalars(), *readers]
        return Reading(self._name, self.parameters, readers if is_needed else (), settings)

    def of_result(self, result: Any, settings: Settings) -> Attributes:
        """Return the attributes of *result*; those that fail are left out and counted."""
        attributes: Attributes = {}
        for reader in self._result_readers:
            reader(result, settings, attributes)
        return attributes

    def option(self, given: object, name: str) -> Callable[[Values], Any]:
        """
        Return what reads the option *given* (an extractor, a path or a plain value) of a call; None where it fails.

        Raises:
            InstrumentationError: It asks for a parameter there is not.
        """
        read: Callable[[Values], Any]
        if isinstance(given, Path):
            read = self._follower(given, name)
        elif callable(given):
            read = self._caller(given, name)
        elif isinstance(given, (str, bytes, int, float)):
            msg = (
                f"{name} of {self._name} got {given!r}, expected a carrier or what returns one. Write {name}=lambda ..."
            )
            raise InstrumentationError(msg)
        else:
            read = lambda _values: given  # noqa: E731  # one of four
        operation, bound = self._name, self.parameters.bound

        def option(values: Values) -> Any:
            try:
                return read(bound(values))
            except FORGIVEN as error:  # user code, or a wrong call
                forgive(operation, name, error)
                return None

        return option

    # --- attributes= -------------------------------------------------------------------------------------------------

    def _parts(self, attributes: object) -> Sequence[object]:
        if attributes is None:
            return ()
        parts = cast("Sequence[object]", attributes) if isinstance(attributes, (list, tuple)) else (attributes,)
        for part in parts:
            if isinstance(part, Path) or not (isinstance(part, Mapping) or callable(part)):
                msg = (
                    f"attributes of {self._name} got {part!r}, expected a mapping of keys to constants or extractors, "
                    f"or a callable that returns one. Write attributes={{'order.id': arg('order.id')}}."
                )
                raise InstrumentationError(msg)
        return parts

    def _add(self, key: object, value: object) -> None:
        if not isinstance(key, str) or not key:
            msg = f"attributes of {self._name} has the key {key!r}, expected a non-empty string. Write 'order.id'."
            raise InstrumentationError(msg)
        if isinstance(value, Path) and value.of_result:
            self._result_readers.append(self._result_path(key, value))
        elif isinstance(value, Path):
            self._argument_readers.append(self._path(key, value))
        elif callable(value) and not isinstance(value, type):
            self._argument_readers.append(self._extractor(key, value))
        else:
            self.constants[key] = value

    def _path(self, key: str, path: Path) -> ValueReader:
        get, name, source = self._follower(path, f"attributes[{key!r}]"), self._name, path.text

        def read(values: Values, settings: Settings, attributes: Attributes) -> None:
            try:
                if settings.redactor.hides(source):
                    attributes[key] = REDACTED
                    return
                put(attributes, key, get(values), settings.redactor, settings.string_limit, name)
            except FORGIVEN as error:  # user objects on the way
                forgive(name, f"attribute {key!r}", error)

        if path.text in self.parameters.names:
            return ValueReader(key, self.parameters.names.index(path.text), None, (source,), read)
        return ValueReader(key, _ALL, get, (source,), read)

    def _follower(self, path: Path, option: str) -> Callable[[Values], Any]:
        """Return what follows *path* from an argument."""
        parameter, steps = path.text.partition(".")[0], path.steps[1:]
        self._require(parameter, option, f"arg('{'.'.join(('{}', *steps))}')")
        get = self.parameters.getter(parameter)
        return lambda values: follow(get(values), steps)

    def _extractor(self, key: str, extractor: Callable[..., Any]) -> ValueReader:
        call, name = self._caller(extractor, f"attributes[{key!r}]"), self._name
        asked = self._asked(extractor)

        def read(values: Values, settings: Settings, attributes: Attributes) -> None:
            try:
                value = call(values)
                if any(map(settings.redactor.hides, asked)) and type(value) is not bool:
                    # What is made of a secret may well be the secret.
                    value = REDACTED
                put(attributes, key, value, settings.redactor, settings.string_limit, name)
            except FORGIVEN as error:  # user code
                forgive(name, f"attribute {key!r}", error)

        if self._asks_for_one(extractor):
            # The usual lambda is given its argument without more ado.
            return ValueReader(key, self.parameters.names.index(asked[0]), extractor, asked, read)
        return ValueReader(key, _ALL, call, asked, read)

    def _whole(self, extractor: Callable[..., Any]) -> FreeReader:
        call, name = self._caller(extractor, _WHOLE), self._name
        asked = self._asked(extractor)

        def read(values: Values, settings: Settings, attributes: Attributes) -> None:
            try:
                items: Mapping[Any, Any] = call(values)
                if any(map(settings.redactor.hides, asked)):
                    items = {key: item if type(item) is bool else REDACTED for key, item in items.items()}
                attributes.update(attribute_items(items, settings.redactor, settings.string_limit, name))
            except FORGIVEN as error:  # user code
                forgive(name, _WHOLE, error)

        return read

    def _asked(self, extractor: Callable[..., Any]) -> tuple[str, ...]:
        """Return the names of the arguments that *extractor* asks for."""
        names = self.parameters.names
        return tuple(name for name in inspect.signature(extractor).parameters if name in names)

    def _asks_for_one(self, extractor: Callable[..., Any]) -> bool:
        parameters = list(inspect.signature(extractor).parameters.values())
        return len(parameters) == 1 and (
            parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            and parameters[0].name in self.parameters.names
        )

    def _caller(self, extractor: Callable[..., Any], option: str) -> Callable[[Values], Any]:
        """Return what calls *extractor* with the arguments it asks for by name."""
        if inspect.iscoroutinefunction(extractor):
            msg = f"{option} of {self._name} got the coroutine function {extractor!r}, expected a plain one."
            raise InstrumentationError(msg)
        positional: list[Callable[[Values], Any]] = []
        by_keyword: dict[str, Callable[[Values], Any]] = {}
        everything = False
        asked = _extractor_parameters(extractor, option, self._name)
        for parameter in asked:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                everything = True
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL or (
                parameter.name not in self.parameters.names and parameter.default is not inspect.Parameter.empty
            ):
                continue
            else:
                self._require(parameter.name, option, "lambda {0}: ...")
                get = self.parameters.getter(parameter.name)
                if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                    positional.append(get)
                else:
                    by_keyword[parameter.name] = get
        if everything:
            by_keyword = {name: self.parameters.getter(name) for name in self.parameters.names} | by_keyword

        def call(values: Values) -> Any:
            return extractor(*[get(values) for get in positional], **{k: get(values) for k, get in by_keyword.items()})

        return call

    # --- capture= ----------------------------------------------------------------------------------------------------

    def _add_captured(self, capture: object) -> None:
        if capture is None or capture is False:
            return
        if capture is True:
            self._argument_readers += self._scalars()
            return
        if not isinstance(capture, (tuple, list, set, frozenset)):
            example = capture if isinstance(capture, str) else "order_id"
            msg = (
                f"capture of {self._name} got {capture!r}, expected True, False or names. Write capture=({example!r},)."
            )
            raise InstrumentationError(msg)
        for parameter in cast("Sequence[str]", capture):
            self._require(parameter, "capture", "capture=('{}',)")
            if self.parameters.receiver is not None and parameter == self.parameters.names[0]:
                self.constants[parameter] = REDACTED
            else:
                self._argument_readers.append(self._path(parameter, Path(parameter, of_result=False)))

    def _scalars(self) -> list[ValueReader | FreeReader]:
        parameters = self.parameters
        return [
            self._keywords(index) if index == parameters.keywords else self._scalar(index, name)
            for index, name in enumerate(parameters.names)
            if index != parameters.receiver
        ]

    def _scalar(self, index: int, name: str) -> ValueReader:
        def read(values: Values, settings: Settings, attributes: Attributes) -> None:
            put_scalar(attributes, name, values[index], settings.redactor, settings.string_limit, self._name)

        return ValueReader(name, index, None, (), read, is_scalar=True)

    def _keywords(self, index: int) -> FreeReader:
        def read(values: Values, settings: Settings, attributes: Attributes) -> None:
            # Names that no signature has checked: anything at all.
            for name, item in islice(values[index].items(), _MAX_KEYWORDS):
                put_scalar(attributes, name, item, settings.redactor, settings.string_limit, self._name)

        return read

    # --- results -----------------------------------------------------------------------------------------------------

    def _add_result(self, capture_result: object) -> None:
        if capture_result is None or capture_result is False:
            return
        if capture_result is True:
            self._result_readers.append(self._result_path(RETURN_VALUE, Path("", of_result=True)))
        elif isinstance(capture_result, (str, Path)):
            path = capture_result if isinstance(capture_result, Path) else Path(capture_result, of_result=True)
            key = f"{RETURN_VALUE}.{path.text}" if path.text else RETURN_VALUE
            self._result_readers.append(self._result_path(key, path))
        elif isinstance(capture_result, Mapping):
            for key, value in cast("Mapping[str, object]", capture_result).items():
                if isinstance(value, (str, Path)):
                    path = value if isinstance(value, Path) else Path(value, of_result=True)
                    self._result_readers.append(self._result_path(key, path))
                elif callable(value):
                    self._result_readers.append(self._result_extractor(key, value))
                else:
                    self._refuse_result(value)
        elif callable(capture_result):
            self._result_readers.append(self._result_extractor(RETURN_VALUE, capture_result))
        else:
            self._refuse_result(capture_result)

    def _refuse_result(self, given: object) -> None:
        msg = (
            f"capture_result of {self._name} got {given!r}, expected True, a path, a callable or a mapping of keys "
            f"to these. Write capture_result={{'order.status': 'status'}}."
        )
        raise InstrumentationError(msg)

    def _result_path(self, key: str, path: Path) -> _ResultReader:
        return self._result_extractor(key, lambda result: follow(result, path.steps), path.text)

    def _result_extractor(self, key: str, extractor: Callable[[Any], Any], source: str = "") -> _ResultReader:
        name = self._name

        def read(result: Any, settings: Settings, attributes: Attributes) -> None:
            try:
                if settings.redactor.hides(source):
                    attributes[key] = REDACTED
                    return
                value: Any = extractor(result)
                kind = cast("Any", type(value))
                if key == RETURN_VALUE and issubclass(kind, Mapping) and value is not result:
                    attributes.update(attribute_items(value, settings.redactor, settings.string_limit, name))
                else:
                    put(attributes, key, value, settings.redactor, settings.string_limit, name)
            except FORGIVEN as error:  # user code and user objects
                forgive(name, f"attribute {key!r}", error)

        return read

    def _require(self, parameter: object, option: str, writing: str) -> None:
        if isinstance(parameter, str) and parameter in self.parameters:
            return
        import difflib  # 3 ms, and only for what is wrong

        names = self.parameters.names
        has = ", ".join(names) or "no parameters"
        close = difflib.get_close_matches(str(parameter), names, n=1, cutoff=0) or names[-1:]
        example = writing.format(*close) if close else "a constant"
        msg = f"{option} asks for {parameter!r}, which {self._name} does not have (it has: {has}). Write {example}."
        raise InstrumentationError(msg)


def _extractor_parameters(extractor: Callable[..., Any], option: str, name: str) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(extractor).parameters.values())
    except (TypeError, ValueError):
        msg = f"{option} of {name} got {extractor!r}, whose parameters Python does not tell. Write a lambda around it."
        raise InstrumentationError(msg) from None
