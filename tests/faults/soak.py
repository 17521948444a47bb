"""
Processes that make spans, fork and end while their receivers fail at random; then every span is accounted for.

    python -m tests.faults.soak [--seconds 60] [--seed N]

Some processes have a spool, and receivers that refuse for a time, hang or break off: they must lose nothing. The others
have none, and receivers that refuse for good as well: each span has arrived or is counted as dropped, for a reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from otlp_receiver import ACCEPT, Answer, GrpcReceiver, HttpReceiver, Receiver  # noqa: E402  # found only now

import tracekit  # noqa: E402  # as above

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOMENTS: Final[tuple[Answer, ...]] = (
    Answer.failure(503, "UNAVAILABLE"),
    Answer.failure(429, "UNAVAILABLE"),
    Answer.failure(504, "DEADLINE_EXCEEDED"),
    Answer(delay_s=0.3),
    Answer(close=True),
)
# With a spool: it is unknown whether what was not answered has arrived, so that it is sent again.
PASSING: Final = (
    *_MOMENTS,
    Answer(truncated=True),
    Answer.failure(503, "UNAVAILABLE", delay_s=3.0),
    Answer(delay_s=3.0),
)
LASTING: Final = (
    *_MOMENTS,
    Answer.failure(400, "INVALID_ARGUMENT"),
    Answer.failure(500, "INTERNAL"),
    Answer.failure(302, "UNKNOWN"),
    Answer.failure(404, "UNIMPLEMENTED"),
)
DRAIN_S: Final = 60.0

WORKER: Final = """
import atexit, json, os, random, signal, sys, threading, time

made, counting = 0, threading.Lock()

def book():
    # After tracekit's own exit functions: it was registered before.
    stats = tracing.stats
    line = {"made": made, "sampled": stats.sampled, "exported": stats.exported, "spooled": stats.spooled,
            "queued": stats.queued, "dropped": dict(stats.dropped), "errors": stats.internal_errors}
    descriptor = os.open("books", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, json.dumps(line).encode() + b"\\n")
    os.close(descriptor)

atexit.register(book)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

import tracekit

seed, seconds, spool = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] or None
chance = random.Random(seed)
tracing = tracekit.configure(service="soak", spool=spool, timeout_s=5 if spool is None else 2)
stop = threading.Event()

@tracekit.traced("soak.leaf")
def leaf(number):
    count()

@tracekit.traced("soak.root")
def root(leaves):
    count()
    for number in range(leaves):
        leaf(number)

def count():
    global made
    with counting:
        made += 1

def load(seed):
    chance = random.Random(seed)
    while not stop.wait(chance.random() * 0.5):
        for _ in range(chance.randrange(1, 20)):
            root(chance.randrange(10))

def in_child():
    global made, counting
    made, counting = 0, threading.Lock()
    for _ in range(chance.randrange(1, 50)):
        root(3)
    if chance.random() < 0.5:
        tracing.flush(1)
    sys.exit(0)

threads = [threading.Thread(target=load, args=(seed + number,)) for number in range(chance.randrange(1, 4))]
for thread in threads:
    thread.start()
children = []
print("ready", flush=True)
try:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(chance.random())
        if chance.random() < 0.3:
            child = os.fork()
            if not child:
                threads, children = [], []
                in_child()
            children.append(child)
finally:
    stop.set()
    for thread in threads:
        thread.join()
    for child in children:
        os.waitpid(child, 0)
"""


@dataclass
class Group:
    """Processes with one receiver, and what became of their spans."""

    name: str
    receiver: Receiver
    answers: Sequence[Answer]
    directory: Path
    spool: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list[Any])

    def start(self, seed: int, seconds: float) -> None:
        """Start one more process."""
        path = self.directory / "worker.py"
        path.write_text(WORKER)
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "500",
            "PYTHONWARNINGS": "ignore::DeprecationWarning",  # a fork beside threads, which is the point
        }
        command = [sys.executable, str(path), str(seed), str(seconds), self.spool]
        errors = (self.directory / "errors").open("ab")
        process = subprocess.Popen(command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=errors)
        errors.close()
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        self.processes.append(process)

    @property
    def protocol(self) -> str:
        return "grpc" if isinstance(self.receiver, GrpcReceiver) else "http/protobuf"

    def books(self) -> list[dict[str, Any]]:
        """What each process has written at its end."""
        path = self.directory / "books"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def arrived(self) -> int:
        """Spans that have arrived, each counted once."""
        return len({(span.trace_id, span.span_id) for span in self.receiver.spans})

    def drain(self) -> None:
        """Wait for the rest, which is on disk."""
        if not self.spool:
            return
        books = self.books()
        awaited = sum(book["made"] for book in books) - sum(sum(book["dropped"].values()) for book in books)
        tracing = tracekit.configure(
            service="drain",
            endpoint=self.receiver.endpoint,
            protocol="grpc" if isinstance(self.receiver, GrpcReceiver) else "http/protobuf",
            spool=self.spool,
            timeout_s=2,
        )
        deadline_s = time.monotonic() + DRAIN_S
        while self.arrived() < awaited and time.monotonic() < deadline_s:
            time.sleep(0.2)
        tracing.shutdown()

    def verdict(self) -> list[str]:
        """Print the group's summary; return what is wrong."""
        books = self.books()
        made, dropped = 0, Counter[str]()
        wrong: list[str] = []
        for book in books:
            made += book["made"]
            dropped.update(book["dropped"])
            accounted = book["exported"] + book["spooled"] + book["queued"] + sum(book["dropped"].values())
            if not book["made"] == book["sampled"] == accounted or book["queued"] or book["errors"]:
                wrong.append(f"{self.name}: books that do not add up: {book}")
        arrived, repeated = self.arrived(), len(self.receiver.spans)
        lost = made - arrived - sum(dropped.values())
        print(  # noqa: T201
            f"{self.name}: {len(books)} processes made {made:,} spans; {arrived:,} arrived ({repeated - arrived:,} "
            f"twice), {sum(dropped.values()):,} dropped {dict(dropped)}, {lost:,} unaccounted for"
        )
        if lost:
            wrong.append(f"{self.name}: {lost} spans are unaccounted for")
        if self.spool and dropped:
            wrong.append(f"{self.name}: spans were dropped in spite of the spool: {dict(dropped)}")
        if not arrived:
            wrong.append(f"{self.name}: nothing arrived")
        statuses = [process.returncode for process in self.processes]
        if any(statuses):
            wrong.append(
                f"{self.name}: processes ended with {statuses}: {(self.directory / 'errors').read_text()[-2_000:]}"
            )
        return wrong


def soak(seconds: float, seed: int) -> list[str]:
    """Run for *seconds*; return what is wrong."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        groups: list[Group] = []
        for name, receiver, answers, keeps in (
            ("spool, HTTP", HttpReceiver(), PASSING, True),
            ("spool, gRPC", GrpcReceiver(), PASSING, True),
            ("no spool, HTTP", HttpReceiver(), LASTING, False),
            ("no spool, gRPC", GrpcReceiver(), LASTING, False),
        ):
            directory = Path(temporary) / name.replace(", ", "-").replace(" ", "-")
            directory.mkdir()
            groups.append(Group(name, receiver, answers, directory, str(directory / "spool") if keeps else ""))
        fault = threading.Thread(target=_make_faults, args=(groups, seconds, random.Random(chance.random())))
        fault.start()
        for group in groups:
            group.start(chance.randrange(1 << 30), seconds)
        # Some end on the way, and others take their place.
        end_s = time.monotonic() + seconds
        while True:
            time.sleep(min(2.0, seconds / 4))
            if time.monotonic() > end_s - 2:
                break  # they end by themselves: a signal on their way out would only change their status
            group = chance.choice(groups)
            group.processes[-1].terminate()
            group.start(chance.randrange(1 << 30), max(0.5, end_s - time.monotonic()))
        for group in groups:
            for process in group.processes:
                process.wait(120)
        fault.join()
        wrong: list[str] = []
        for group in groups:
            group.drain()
            wrong += group.verdict()
            group.receiver.close()
        return wrong


def _make_faults(groups: Sequence[Group], seconds: float, chance: random.Random) -> None:
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for group in groups:
            group.receiver.answer_always(chance.choice((ACCEPT, *group.answers)))
        time.sleep(chance.random())
    for group in groups:
        group.receiver.answer_always(ACCEPT)


def main() -> None:
    """Run as the command line says; the exit status is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to make faults (default: 60)")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1 << 30), help="repeats a run's choices"
    )
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:g} s", flush=True)  # noqa: T201
    wrong = soak(options.seconds, options.seed)
    print("\n".join(wrong) or "Everything is accounted for.")  # noqa: T201
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
