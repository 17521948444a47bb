"""Batches on disk: bounded, shared, whole after any crash, and each span accounted for."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit._diagnostics import diagnostics
from tracekit.errors import ConfigurationError
from tracekit.export.otlp import Request
from tracekit.export.spool import FILE, Batch, Fates, Spool

WAIT_S = 20.0


@pytest.fixture(autouse=True)
def _forget_reports() -> Iterator[None]:
    diagnostics.reset()
    yield
    diagnostics.reset()


@pytest.fixture
def spool_in(tmp_path: Path) -> Iterator[Callable[..., Spool]]:
    opened: list[Spool] = []

    def make(destination: str = "here", **options: Any) -> Spool:
        opened.append(Spool(tmp_path / "spool", destination, **options))
        return opened[-1]

    yield make
    for spool in opened:
        spool.close()


def request(text: str = "body", spans: int = 1) -> Request:
    return Request(text.encode(), spans)


def claimed(spool: Spool) -> Batch:
    batch = spool.claim(60)
    assert batch is not None
    return batch


def drain(spool: Spool) -> list[str]:
    """Take all there is off the disk, as if it was sent."""
    bodies: list[str] = []
    while (batch := spool.claim(60)) is not None:
        bodies.append(batch.request.body.decode())
        spool.settle(batch, batch.request.spans, {})
    return bodies


def test_what_is_kept_comes_back_in_order(spool_in: Callable[..., Spool]) -> None:
    spool = spool_in()
    assert spool.add([request("a", 3), request("b", 2)])
    assert spool.add([request("c")])
    assert spool.fates(6) == Fates(spooled=6)
    assert drain(spool) == ["a", "b", "c"]
    assert spool.fates(6) == Fates(exported=6)


def test_what_one_process_kept_is_sent_and_accounted_for_by_another(spool_in: Callable[..., Spool]) -> None:
    kept, sent = spool_in(), spool_in()
    kept.add([request("a", 5)])
    batch = claimed(sent)
    sent.settle(batch, 1, {"rejected": 2}, request("rest", 2))
    assert kept.fates(5) == Fates(2, 1, {"rejected": 2})
    assert drain(sent) == ["rest"]
    assert kept.fates(5) == Fates(0, 3, {"rejected": 2})
    assert sent.fates(0) == Fates()


def test_one_process_sends_at_a_time(spool_in: Callable[..., Spool]) -> None:
    first, second = spool_in(), spool_in()
    first.add([request("a")])
    assert first.claim(60) is not None
    assert second.claim(60) is None
    first.release()
    assert second.claim(60) is not None
    assert first.claim(60) is None


def test_another_goes_on_when_the_time_of_the_first_is_over(spool_in: Callable[..., Spool]) -> None:
    first, second = spool_in(), spool_in()
    first.add([request("a")])
    assert first.claim(0) is not None
    assert second.claim(60) is not None


def test_batches_for_one_receiver_are_not_sent_to_another(spool_in: Callable[..., Spool]) -> None:
    here, there = spool_in("here"), spool_in("there")
    here.add([request("a")])
    assert there.claim(60) is None
    assert drain(here) == ["a"]


def test_the_oldest_leave_first_where_there_is_no_room(spool_in: Callable[..., Spool]) -> None:
    spool, other = spool_in(max_bytes=400_000), spool_in(max_bytes=400_000)
    other.add([request("o" * 100_000, 2)])
    for letter in "abcdef":
        assert spool.add([request(letter * 100_000)])
    kept = [body[0] for body in drain(spool)]
    assert kept == list("abcdef")[-len(kept) :]
    assert 2 <= len(kept) <= 4
    assert other.fates(2) == Fates(lost={"spool_full": 2})
    assert spool.fates(6) == Fates(exported=len(kept), lost={"spool_full": 6 - len(kept)})
    assert not spool.add([request("x" * 400_001)])
    assert spool.database.path.stat().st_size < 600_000


def test_what_is_too_old_leaves(spool_in: Callable[..., Spool]) -> None:
    spool = spool_in(max_age_s=0.0)
    spool.add([request("a", 3)])
    assert spool.claim(60) is None
    assert spool.fates(3) == Fates(lost={"spool_expired": 3})


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(8_192))


def torn(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(9_000)


def overwritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4_096] + b"\xff" * (len(content) - 4_096))


def of_another_program(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE batches (x)")
    database.commit()
    database.close()


@pytest.mark.parametrize("damage", [garbage, torn, overwritten, of_another_program])
def test_a_damaged_file_is_set_aside_and_counted(
    spool_in: Callable[..., Spool], damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spool = spool_in()
    spool.add([request("x" * 50_000, 3)])
    assert drain(spool)
    spool.add([request("y" * 50_000, 4)])
    spool.database.disconnect()  # as a crash would; or the damage would meet a file in use
    damage(spool.database.path)
    assert spool.add([request("new")])
    assert spool.fates(8) == Fates(1, 3, {"spool_damaged": 4})
    assert drain(spool) == ["new"]
    assert spool.database.damaged.exists()
    assert "set aside" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE batches SET origin = CAST(x'ff41' AS TEXT)",
        "UPDATE batches SET spans = 'many'",
        "UPDATE batches SET body = 'text'",
        "UPDATE leases SET holder = 'somebody'",
        "UPDATE leases SET holder = 'a/b/c', until = 'tomorrow'",
        "INSERT INTO fates SELECT origin, 'exported', 'all', kept_at FROM batches",
    ],
)
def test_values_that_nobody_has_written_hold_up_no_batch(spool_in: Callable[..., Spool], change: str) -> None:
    spool, other = spool_in(), spool_in()
    spool.add([request("a", 2)])
    assert other.claim(60) is not None
    database = sqlite3.connect(spool.database.path)
    database.execute(change)
    database.commit()
    database.close()
    spool.claim(60)
    assert spool.add([request("new")])
    assert drain(spool)[-1:] == ["new"]
    fates = spool.fates(3)
    assert fates.spooled + fates.exported + sum(fates.lost.values()) == 3


def test_a_directory_that_is_taken_away_is_made_again(spool_in: Callable[..., Spool]) -> None:
    spool, other = spool_in(), spool_in()
    spool.add([request("a", 2)])
    shutil.rmtree(spool.database.path.parent)
    assert other.add([request("b")])
    assert spool.add([request("c")])
    assert drain(other) == ["b", "c"]
    assert spool.fates(3) == Fates(0, 1, {"spool_damaged": 2})


def test_a_full_disk_is_reported_and_costs_nobody_else(spool_in: Callable[..., Spool]) -> None:
    spool = spool_in()
    assert spool.add([request("a")])
    spool.database._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own word for it: the disk is full
    assert not spool.add([request("b" * 1_000_000)])
    assert drain(spool) == ["a"]
    assert diagnostics.internal_errors == 1


@pytest.mark.skipif(os.name != "posix", reason="file modes of POSIX")
def test_only_the_owner_may_read(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "spool"
    spool = Spool(directory, "here")
    spool.add([request()])
    assert directory.stat().st_mode & 0o777 == 0o700
    files = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert files == dict.fromkeys([FILE, f"{FILE}-wal", f"{FILE}-shm"], 0o600)
    spool.close()
    (directory / FILE).chmod(0o644)
    Spool(directory, "here").close()
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("file/spool", "no\0path"):
        with pytest.raises(ConfigurationError, match=r"spool=.*cannot be kept there"):
            Spool(tmp_path / path, "here")


@pytest.mark.slow  # SQLite waits for two seconds
def test_a_program_starts_while_another_holds_the_file(spool_in: Callable[..., Spool]) -> None:
    path = spool_in().database.path
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    spool = spool_in()
    assert diagnostics.internal_errors == 1
    other.close()
    assert spool.add([request("a")])
    assert drain(spool) == ["a"]


class Model:
    """What is said of the spans of each of several processes, kept by hand."""

    def __init__(self, directory: Path, processes: int) -> None:
        self.spools = [Spool(directory, "here") for _ in range(processes)]
        self.kept = Counter[int]()
        self.fates = [Counter[str]() for _ in self.spools]
        self.batches: list[tuple[int, int]] = []

    def add(self, process: int, spans: int) -> None:
        assert self.spools[process].add([request("x", spans)])
        self.kept[process] += spans
        self.batches.append((process, spans))

    def send(self, process: int, parts: list[int]) -> None:
        batch = self.spools[process].claim(0)
        if not self.batches:
            assert batch is None
            return
        assert batch is not None
        owner, spans = self.batches.pop(0)
        assert batch.request.spans == spans
        rejected, left = min(parts[0], spans), max(0, min(parts[1], spans - parts[0]))
        exported = spans - rejected - left
        lost = {"rejected": rejected} if rejected else {}
        self.spools[process].settle(batch, exported, lost, request("y", left) if left else None)
        self.fates[owner]["exported"] += exported
        self.fates[owner]["rejected"] += rejected
        if left:
            self.batches.insert(0, (owner, left))


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.one_of(st.integers(1, 5), st.lists(st.integers(0, 5), min_size=2, max_size=2))),
        max_size=25,
    )
)
@settings(max_examples=8)
def test_the_books_of_all_processes_add_up(steps: list[tuple[int, int | list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = Model(Path(directory), 3)
        for process, what in steps:
            if isinstance(what, int):
                model.add(process, what)
            else:
                model.send(process, what)
            for number, spool in enumerate(model.spools):
                fates = spool.fates(model.kept[number])
                assert fates.exported == model.fates[number]["exported"]
                assert fates.lost.get("rejected", 0) == model.fates[number]["rejected"]
                assert fates.spooled + fates.exported + sum(fates.lost.values()) == model.kept[number]
        for spool in model.spools:
            spool.close()


PRELUDE = """
import os, signal, sys
from pathlib import Path
from tracekit.export.otlp import Request
from tracekit.export.spool import Fates, Spool
spool = Spool(Path(sys.argv[1]), "here")
"""


def run(program: str, directory: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", PRELUDE + program, str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
@pytest.mark.parametrize("writes", [1, 40])
def test_a_kill_in_the_middle_of_a_write_costs_that_batch_at_most(
    spool_in: Callable[..., Spool], tmp_path: Path, writes: int
) -> None:
    program = """
number = 0
while True:
    assert spool.add([Request(b"%d." % number * 20_000, 1)])
    os.write(1, b".")
    number += 1
"""
    command = [sys.executable, "-c", PRELUDE + program, str(tmp_path / "spool")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        written = process.stdout.read(writes)
        process.kill()
        written += process.stdout.read()
    bodies = drain(spool_in())
    assert len(written) <= len(bodies) <= len(written) + 1
    assert bodies == [f"{number}." * 20_000 for number in range(len(bodies))]


@pytest.mark.skipif(os.name != "posix", reason="processes are looked for as POSIX has it")
def test_a_process_that_was_killed_while_sending_holds_up_nobody(
    spool_in: Callable[..., Spool], tmp_path: Path
) -> None:
    run("spool.add([Request(b'a', 1)]); assert spool.claim(3600); os._exit(0)", tmp_path / "spool")
    assert drain(spool_in()) == ["a"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_connection_and_books_of_its_own(spool_in: Callable[..., Spool], tmp_path: Path) -> None:
    run(
        """
spool.add([Request(b"parent", 1)])
children = []
for number in range(5):
    assert spool.add([Request(b"parent", 1)])
    child = os.fork()
    if not child:
        assert spool.database._connection is None
        assert spool.fates(0) == Fates()
        for _ in range(20):
            assert spool.add([Request(b"child", 2)])
        assert spool.fates(40) == Fates(40)
        spool.close()
        sys.exit(0)
    children.append(child)
for child in children:
    assert os.waitpid(child, 0)[1] == 0
assert spool.fates(6) == Fates(6)
spool.close()
""",
        tmp_path / "spool",
    )
    assert Counter(drain(spool_in())) == {"parent": 6, "child": 100}


@pytest.mark.parametrize("processes", [3])
def test_processes_that_write_at_once_lose_nothing(
    spool_in: Callable[..., Spool], tmp_path: Path, processes: int
) -> None:
    program = "for n in range(50): assert spool.add([Request(b'%d' % n, 1)])\nspool.close()"
    command = [sys.executable, "-W", "error", "-c", PRELUDE + program, str(tmp_path / "spool")]
    running = [subprocess.Popen(command) for _ in range(processes)]
    sent: list[str] = []
    spool = spool_in()
    while any(process.poll() is None for process in running):
        sent += drain(spool)
    sent += drain(spool)
    assert [process.returncode for process in running] == [0] * processes
    assert Counter(sent) == {str(number): processes for number in range(50)}
