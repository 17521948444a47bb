"""FastAPI: one server span a request or WebSocket, named by its route, whenever the app was made."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, cast, final
from weakref import WeakSet

from fastapi import FastAPI
from fastapi import routing as fastapi_routing
from opentelemetry.instrumentation import asgi
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context
from opentelemetry.util.http import ExcludeList, parse_excluded_urls, sanitize_method
from starlette.background import BackgroundTask
from starlette.routing import Host, Match, Mount
from typing_extensions import override

from tracekit._diagnostics import report_failure
from tracekit.errors import InstrumentationError
from tracekit.instrumentation.wiring import MARK, Instrumented, Official, check_call, stable_conventions
from tracekit.propagation import use_context

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from opentelemetry.trace import Span

_Scope = MutableMapping[str, Any]
_ASGIApp = Callable[[_Scope, Any, Any], Awaitable[None]]
_Hook = Callable[["Span", _Scope], None]

# Whole paths only: /health is asked every second by a machine, /patients/7/health by somebody.
HEALTH_CHECKS: Final = (
    r"^\w+://[^/]+(?:/api|/v\d+)*/(?:-/)?"
    r"(?:health|healthz|healthcheck|health-check|healthy|live|livez|liveness|ready|readyz|readiness|startup|startupz"
    r"|ping|metrics|health/(?:live|liveness|ready|readiness|startup))/?$"
)
_EXCLUDED_URLS: Final = ("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS")

_MIDDLEWARE: Final[Any] = asgi.OpenTelemetryMiddleware
_url_parts: Final[Callable[[_Scope], tuple[str, int, str]]] = cast("Any", asgi).get_host_port_url_tuple
_known_method: Final[Callable[[str], str]] = cast("Any", sanitize_method)

# FastAPI since 0.137 keeps the routes of included routers in a tree.
_flat_routes: Final[Callable[[Iterable[Any]], Iterable[Any]]] = getattr(fastapi_routing, "iter_route_contexts", iter)


@final
class FastAPIWiring(Official):
    """
    The official instrumentation, for one app or for every app of the process.

    It patches the class's name, which misses apps and imports that were there first; here each app is instrumented
    when it gets its first message.
    """

    def __init__(self, name: str, entry_point: EntryPoint) -> None:
        super().__init__(name, entry_point)
        self._options: dict[str, Any] = {}
        self._left_out: WeakSet[FastAPI] = WeakSet()
        self._patched: Any = None
        self._unpatched: Any = None

    @override
    def wire(self, options: dict[str, Any]) -> Instrumented:
        excluded = next((os.environ[name] for name in _EXCLUDED_URLS if name in os.environ), HEALTH_CHECKS)
        return super().wire({"exclude_spans": ["send", "receive"], "excluded_urls": excluded, **options})

    @override
    def wire_all(self, options: dict[str, Any]) -> Instrumented:
        check_call(self.name, self.instrumentor.instrument_app, None, **options)
        if not self.all_wired:
            self._options = options
            self.all_wired = True
            if FastAPI.__call__ is not self._patched:
                self._unpatched = FastAPI.__call__
                self._patched = FastAPI.__call__ = self._adopting(FastAPI.__call__)  # type: ignore[method-assign]
        return self.state

    @override
    def unwire_all(self) -> None:
        self._left_out.clear()
        # Otherwise somebody patched on top: ours stays in the chain and does nothing.
        if FastAPI.__call__ is self._patched:
            FastAPI.__call__ = self._unpatched  # type: ignore[method-assign]

    @override
    def wire_target(self, kind: str, target: Any, options: dict[str, Any]) -> Instrumented:
        if not isinstance(target, FastAPI):
            msg = (
                f"instrument('fastapi', {kind}=...) was given a {type(target).__name__}; expected a FastAPI app. "
                "Write instrument('fastapi', app=app), before wrapping the app in other ASGI middleware."
            )
            raise InstrumentationError(msg)
        check_call(self.name, self.instrumentor.instrument_app, target, **options)
        if target in self.targets:
            return self.state
        if getattr(target, MARK, False) or any(each.cls is _MIDDLEWARE for each in target.user_middleware):
            return self.left_out(f"this app is already instrumented by another call of {self.by}")
        self._left_out.discard(target)
        hook = _naming_mounts(options.get("server_request_hook"))
        self.instrumentor.instrument_app(target, **{**options, "server_request_hook": hook})
        official = target.build_middleware_stack
        excluded = parse_excluded_urls(options["excluded_urls"])
        target.build_middleware_stack = lambda: _Requests(official(), excluded)  # type: ignore[method-assign]
        # An app that has had its first message has built its stack, without the above.
        target.middleware_stack = None
        self.targets.add(target)
        return self.state

    @override
    def unwire_target(self, target: Any) -> None:
        self._left_out.add(target)
        tasks: Any = BackgroundTask
        calls = tasks.__call__, getattr(tasks, "_otel_original_call", None)
        super().unwire_target(target)
        target.middleware_stack = None
        if self.targets and calls[1] is not None:
            # It stops tracing background tasks with the first app that leaves, for all.
            tasks.__call__, tasks._otel_original_call = calls  # noqa: SLF001  # its own name for what it replaced

    def _adopting(self, call: Any) -> Any:
        @wraps(call)
        async def __call__(app: FastAPI, scope: _Scope, receive: Any, send: Any) -> None:  # noqa: N807  # its name
            if self.all_wired and not getattr(app, MARK, False):
                self._adopt(app, scope)
            await call(app, scope, receive, send)

        return __call__

    def _adopt(self, app: FastAPI, scope: _Scope) -> None:
        # An app mounted in an instrumented one has its span already.
        if app in self._left_out or getattr(scope.get("app"), MARK, False):
            return
        try:
            # Again: the first app may be adopted before any other library was wired.
            with stable_conventions():
                if self.wire_target("app", app, self._options).reason:
                    self._left_out.add(app)
        except Exception as error:  # noqa: BLE001  # the request must be served
            self._left_out.add(app)
            report_failure("tracekit.instrumentation", "fastapi", error)


@final
class _Requests:
    """The outermost middleware: what must hold before the official one sees a request."""

    def __init__(self, app: _ASGIApp, excluded: ExcludeList) -> None:
        # FastAPI looks for the official middleware along `app`, and then makes no spans of its own.
        self.app = app
        self._excluded = excluded

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        # FastAPI stands back for this app but not for apps mounted in it: with this key it does.
        scope.setdefault("fastapi.telemetry", None)
        if not self._excluded.url_disabled(_url_parts(scope)[2]):
            await self.app(scope, receive, send)
            return
        # The query of a health check would start a trace of its own, here and in the services it calls.
        not_sampled = SpanContext(secrets.randbits(128) | 1, secrets.randbits(64) | 1, is_remote=False)
        with use_context(set_span_in_context(NonRecordingSpan(not_sampled))):
            await self.app(scope, receive, send)


def _naming_mounts(hook: _Hook | None) -> _Hook:
    """Return a request hook that names requests to mounted apps by their whole route, then calls *hook*."""

    def name_mounts(span: Span, scope: _Scope) -> None:
        routes = scope["app"].routes
        if span.is_recording() and any(isinstance(route, (Mount, Host)) for route in routes):
            template = _template(routes, scope)
            if template:
                method = _known_method(scope.get("method", ""))
                span.update_name(f"{'HTTP' if method in ('', '_OTHER') else method} {template}")
                span.set_attribute("http.route", template)
        if hook is not None:
            hook(span, scope)

    return name_mounts


def _template(routes: Iterable[Any], scope: _Scope) -> str:
    for route in _flat_routes(routes):
        match, child = route.matches(scope)
        if match is not Match.NONE:
            inner = getattr(route, "routes", None)
            path = getattr(route, "path", None) or ""  # a Host has none
            return path + _template(inner, {**scope, **child}) if inner else path
    return ""


def make_wiring(entry_point: EntryPoint) -> FastAPIWiring:
    """Return the wiring of FastAPI."""
    return FastAPIWiring("fastapi", entry_point)
