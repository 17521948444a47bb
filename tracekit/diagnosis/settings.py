"""Every setting with its value and where that comes from; variables that cannot be read, or are misspelt."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from tracekit._environment import Environment
from tracekit._redaction import Redactor
from tracekit.errors import TracekitError
from tracekit.redaction import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tracekit.diagnosis.report import Report, Status


@final
class Setting(NamedTuple):
    """
    An argument of `configure()`, or a variable that has none.

    Args:
        name: What it is called.
        variables: What sets it, the first that is set counts.
        default: What holds otherwise.
    """

    name: str
    variables: tuple[str, ...]
    default: str


def _otlp(what: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_TRACES_{what}", f"OTEL_EXPORTER_OTLP_{what}"


# The table of docs/configuration.md; a test compares them.
SETTINGS: Final = (
    Setting("service", ("OTEL_SERVICE_NAME",), "the script's or module's name"),
    Setting("version", (), "none"),
    Setting("environment", (), "none"),
    Setting("resource", ("OTEL_RESOURCE_ATTRIBUTES",), "host, process and SDK"),
    Setting("exporter", ("OTEL_TRACES_EXPORTER",), "auto: OTLP where an endpoint is given, else the tree on stderr"),
    Setting("endpoint", _otlp("ENDPOINT"), "this machine"),
    Setting("protocol", _otlp("PROTOCOL"), "by the endpoint's port"),
    Setting("insecure", _otlp("INSECURE"), "by the endpoint's scheme"),
    Setting("headers", _otlp("HEADERS"), "none"),
    Setting("compression", _otlp("COMPRESSION"), "none"),
    Setting("timeout_s", _otlp("TIMEOUT"), "10 s"),
    Setting("sample", ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"), "all new traces"),
    Setting("propagators", ("OTEL_PROPAGATORS",), "tracecontext, baggage"),
    Setting("metrics", ("OTEL_METRICS_EXPORTER", "OTEL_METRIC_EXPORT_INTERVAL"), "off"),
    Setting("keep_errors", (), "off"),
    Setting("keep_slower_than_s", (), "off"),
    Setting("capture_arguments", (), "on"),
    Setting("redact", (), "names such as password, token, secret"),
    Setting("code_location", (), "off"),
    Setting("expected", (), "no exception types"),
    Setting("baggage_attributes", (), "none"),
    Setting("instrument", (), "nothing"),
    Setting("spool", (), "off"),
    Setting("provider", (), "tracekit's own"),
    Setting("id_generator", (), "the operating system's entropy"),
)
# What has no argument, with its default.
VARIABLES: Final[Mapping[str, str]] = {
    "OTEL_SDK_DISABLED": "false",
    "OTEL_BSP_SCHEDULE_DELAY": "5000",
    "OTEL_BSP_EXPORT_TIMEOUT": "30000",
    "OTEL_BSP_MAX_QUEUE_SIZE": "tracekit's own",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "tracekit's own",
    "OTEL_ATTRIBUTE_COUNT_LIMIT": "128",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2048",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "128",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": "2048",
    "OTEL_SPAN_EVENT_COUNT_LIMIT": "128",
    "OTEL_SPAN_LINK_COUNT_LIMIT": "128",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": "128",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": "128",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": "the system's authorities",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY": "none",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "none",
}
# Each may also be set for traces alone.
_FILES: Final = tuple(name for what in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE") for name in _otlp(what))
_KEYS, _CERTIFICATES = _otlp("CLIENT_KEY"), _otlp("CLIENT_CERTIFICATE")
_KNOWN: Final = frozenset({*VARIABLES, *_FILES, *(name for setting in SETTINGS for name in setting.variables)})
# Read by others: other signals, instrumentations, other exporters. Nothing is said of them.
_OF_OTHERS: Final = re.compile(
    r"OTEL_(?:PYTHON_|INSTRUMENTATION_|SEMCONV_|BLRP_|LOGRECORD_|METRICS?_|LOGS?_|GO_|JAVA|NODE|DOTNET|CONFIG|EXPERIMENTAL_)\w*"
    r"|OTEL_EXPORTER_(?:OTLP_(?:METRICS|LOGS|PROFILES)|ZIPKIN|JAEGER|PROMETHEUS|CONSOLE)_\w+|OTEL_ENTITIES"
)
# What makes a variable count at all.
_COMPANIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "OTEL_METRIC_EXPORT_INTERVAL": {"OTEL_METRICS_EXPORTER": "console"},
    "OTEL_TRACES_SAMPLER_ARG": {"OTEL_TRACES_SAMPLER": "traceidratio"},
}
_PAIRS: Final = ("OTEL_RESOURCE_ATTRIBUTES",)
# User name and password of a URL; what follows its question mark.
_URL_SECRETS: Final = re.compile(r"(?<=://)[^/@]*@|(?<=\?).*", re.DOTALL)
_MAX_VALUE: Final = 200


def check_settings(report: Report, given: Mapping[str, Any], variables: Mapping[str, str]) -> None:
    """
    Add each setting, and what is wrong with the environment.

    Args:
        report: Where to.
        given: Arguments of `configure()` from the command line.
        variables: The environment.
    """
    for name, error in _unreadable(variables):
        report.add("settings", "variable", "fail", error, variable=name)
    for name, meant in _misspelt(variables):
        advice = f"Did you mean {meant}?"
        report.add(
            "settings", "unknown_variable", "warn", f"{name} is set, but nothing reads it", advice, variable=name
        )
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        report.add("settings", "disabled", "warn", "OTEL_SDK_DISABLED=true: no span is made", "Unset it to trace")
    told = [(setting.name, *_value_of(setting, given, variables)) for setting in SETTINGS]
    for name in dict.fromkeys((*VARIABLES, *_FILES)):
        value = variables.get(name, "").strip()
        if value or name in VARIABLES:
            told.append((name, value or VARIABLES[name], "environment" if value else "default"))
    # What somebody has set comes first.
    for name, value, source in sorted(told, key=lambda each: each[2] == "default"):
        _add(report, name, value, source)


def _add(report: Report, name: str, value: str, source: str) -> None:
    status: Status = "info" if source == "default" else "ok"
    report.add("settings", name, status, f"{name} = {value}  ({source})", name=name, value=value, source=source)


def _value_of(setting: Setting, given: Mapping[str, Any], variables: Mapping[str, str]) -> tuple[str, str]:
    """Return the value, without secrets, and where it comes from."""
    if given.get(setting.name) is not None:
        return _shown(setting.name, str(given[setting.name])), "option"
    found = [name for name in setting.variables if variables.get(name, "").strip()]
    if setting.name == "sample" and found and found[0].endswith("_ARG"):
        found = []  # says nothing alone
    if not found:
        return setting.default, "default"
    shown = _shown(setting.name, variables[found[0]].strip(), found[0])
    if setting.name == "timeout_s" and shown.isdecimal():
        shown = f"{int(shown) / 1000:g} s"
    if setting.name == "sample" and len(found) > 1:
        shown += f" {variables[found[1]].strip()}"
        return shown, ", ".join(found)
    return shown, found[0]


def _shown(name: str, value: str, variable: str = "") -> str:
    if name == "headers":
        names = [pair.partition("=")[0].strip() for pair in value.split(",") if pair.strip()]
        return ", ".join(f"{header}={REDACTED}" for header in names)
    if variable in _PAIRS:
        hides = Redactor().hides
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return ",".join(f"{key.strip()}={REDACTED if hides(key.strip()) else text.strip()}" for key, _, text in pairs)
    return _URL_SECRETS.sub(REDACTED, value)[:_MAX_VALUE]


def _unreadable(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that `configure()` would refuse, and what it would say; each is read alone."""
    for name in sorted(variables.keys() & _KNOWN):
        # A key says nothing without its certificate.
        with_it = {other: variables[other] for other in _CERTIFICATES if name in _KEYS and other in variables}
        alone = Environment({name: variables[name], **with_it, **_COMPANIONS.get(name, {})})
        for read in _readers():
            try:
                read(alone)
            except TracekitError as error:
                yield name, str(error)
                break


def _readers() -> tuple[Callable[[Environment], object], ...]:
    from tracekit.configuration.batching import Batching
    from tracekit.configuration.exporters import ExportOptions, sinks_of
    from tracekit.configuration.limits import span_limits
    from tracekit.configuration.metering import metering_of
    from tracekit.configuration.propagators import propagator_of
    from tracekit.export.connection import resolve_connection
    from tracekit.sampling import sampler_from

    def resource() -> Any:
        return None

    return (
        Batching.of,
        span_limits,
        lambda alone: sampler_from(None, variables=alone),
        lambda alone: propagator_of(None, alone),
        lambda alone: alone.pairs("OTEL_RESOURCE_ATTRIBUTES"),
        lambda alone: alone.boolean("OTEL_SDK_DISABLED"),
        lambda alone: resolve_connection(alone, "traces"),
        # Certificates count with TLS only.
        lambda alone: resolve_connection(alone, "traces", insecure=False) if _is_file(alone) else None,
        lambda alone: sinks_of("auto", ExportOptions(), alone),
        lambda alone: metering_of((), ExportOptions(), alone, resource),
    )


def _is_file(alone: Environment) -> bool:
    return any(alone.text(name) for name in _FILES)


def _misspelt(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in sorted(variables):
        if name.startswith("OTEL") and name not in _KNOWN and not _OF_OTHERS.fullmatch(name):
            close = difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.85)
            if close:
                yield name, close[0]
