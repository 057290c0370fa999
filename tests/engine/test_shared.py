"""Shared records: across processes, and never half of one state and half of another."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import pytest

from realtime_sep.shared import SharedRecord

#: Far apart in memory, so that a torn copy is one in which they differ.
STATE = np.dtype([("first", "u8"), ("many", "u8", (1000,)), ("last", "u8")])


def write(record: SharedRecord, value: int) -> None:
    with record.writing() as fields:
        fields["first"] = value
        fields["many"] = value
        fields["last"] = value


def values(state: Any) -> set[int]:
    return {int(state["first"]), *state["many"].tolist(), int(state["last"])}


def hammer(record: SharedRecord, stop: Event | threading.Event) -> None:
    value = 0
    while not stop.is_set():
        value += 1
        write(record, value)
        time.sleep(0)  # or a thread would hand the lock over only where numpy does: while it writes


def test_a_new_record_is_zero_and_keeps_what_is_written() -> None:
    record = SharedRecord(STATE)
    assert values(record.read()) == {0}
    write(record, 7)
    assert values(record.read()) == {7}


def test_what_was_read_does_not_change_any_more() -> None:
    record = SharedRecord(STATE)
    before = record.read()
    write(record, 7)
    assert values(before) == {0}


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_readers_see_whole_states_while_a_writer_hammers(kind: str) -> None:
    record = SharedRecord(STATE)
    context = multiprocessing.get_context("spawn")
    stop: Event | threading.Event
    writer: Any
    if kind == "thread":
        stop = threading.Event()
        writer = threading.Thread(target=hammer, args=(record, stop), daemon=True)
    else:
        stop = context.Event()
        writer = context.Process(target=hammer, args=(record, stop), daemon=True)
    writer.start()
    try:
        deadline = time.monotonic() + 30
        while values(record.read()) == {0}:
            assert time.monotonic() < deadline, "the writer does not reach us"
        seen = []
        for _ in range(2000):
            (value,) = values(record.read())
            seen.append(value)
    finally:
        stop.set()
        writer.join(30)
    assert seen == sorted(seen)
    assert seen[-1] > seen[0], "there was something to see"


def test_the_other_process_reads_what_we_write() -> None:
    """Both ways: as the parameters go in and the statistics out."""
    context = multiprocessing.get_context("spawn")
    question, answer = SharedRecord(STATE), SharedRecord(STATE)
    write(question, 41)
    process = context.Process(target=_answer, args=(question, answer), daemon=True)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert values(answer.read()) == {42}


def _answer(question: SharedRecord, answer: SharedRecord) -> None:
    (value,) = values(question.read())
    write(answer, value + 1)


class Racing:
    """Fields that are overwritten in the middle of a copy, which takes its end first and its
    beginning, with the version, last: as `memcpy` may."""

    def __init__(self, record: SharedRecord, races: int) -> None:
        self._record, self._fields = record, record.fields
        self.races = races

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def copy(self) -> Any:
        copy = self._fields.copy()
        if self.races:
            self.races -= 1
            self._record.fields = self._fields
            write(self._record, int(copy["first"]) + 1)
            self._record.fields = self
            copy["version"], copy["first"] = self._fields["version"], self._fields["first"]
        return copy


@pytest.mark.parametrize("races", [1, 5])
def test_a_copy_that_was_overtaken_is_taken_again(races: int) -> None:
    record = SharedRecord(STATE)
    record.fields = Racing(record, races)
    assert values(record.read()) == {races}


def test_a_writer_that_died_in_the_middle_blocks_nobody() -> None:
    record = SharedRecord(STATE)
    write(record, 3)
    record.fields["version"] += 1
    assert values(record.read()) == {3}, "at once or soon; for ever would be the test's timeout"


def test_an_error_while_writing_ends_the_writing() -> None:
    record = SharedRecord(STATE)
    with pytest.raises(RuntimeError), record.writing():
        raise RuntimeError
    assert record.read()["version"] % 2 == 0
