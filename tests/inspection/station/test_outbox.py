"""The queue to the line: order, the disk, refusals, limits, and a killed process."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from andon.core import ConfigError, StoreError
from andon.inspection.station.outbox import Message, Outbox, OutputError, QueueLimits

QUICK = QueueLimits(first_wait=0.01, longest_wait=0.05, tries=3)


class Receiver:
    """Takes messages, or does not."""

    def __init__(self, name: str = "receiver", fault: Callable[[Message, int], Exception | None] | None = None) -> None:
        self.name, self.fault = name, fault
        self.got: list[dict[str, object]] = []
        self.tried: list[str] = []
        self.closed = 0

    def send(self, message: Message) -> None:
        self.tried.append(message.id)
        error = self.fault(message, self.tried.count(message.id)) if self.fault else None
        if error is not None:
            raise error
        told = json.loads(message.body)
        assert told["message_id"] == message.id
        self.got.append(told)

    def close(self) -> None:
        self.closed += 1


def away(_message: Message, _tries: int) -> Exception:
    return OutputError("nobody is there")


def numbers(receiver: Receiver) -> list[object]:
    return [told["n"] for told in receiver.got]


def test_messages_arrive_once_in_order_at_every_output(tmp_path: Path) -> None:
    one, two = Receiver("one"), Receiver("two", lambda _message, tries: OutputError("busy") if tries < 3 else None)
    box = Outbox(tmp_path / "box.sqlite", [one, two], QUICK)
    ids = [box.put({"n": n, "text": "Äöß"}) for n in range(20)]
    assert box.flush(20)
    assert numbers(one) == numbers(two) == list(range(20))
    assert one.tried == ids
    assert len(set(ids)) == 20
    status = {s.name: s for s in box.status()}
    assert status["one"].sent == status["two"].sent == 20
    assert status["one"].last_sent is not None
    assert status["two"].last_error == ""
    box.close()
    assert one.closed == two.closed == 1
    with sqlite3.connect(tmp_path / "box.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM messages").fetchone() == (0,), "what arrived is not kept"


def test_an_absent_receiver_holds_up_nobody_else_and_loses_nothing(tmp_path: Path) -> None:
    there = threading.Event()
    slow = Receiver("slow", lambda _message, _tries: None if there.is_set() else OutputError("nobody is there"))
    quick = Receiver("quick")
    box = Outbox(tmp_path / "box.sqlite", [slow, quick], QUICK)
    for n in range(10):
        box.put({"n": n})
    wait_until(lambda: len(quick.got) == 10)
    assert box.pending() == {"slow": 10, "quick": 0}
    wait_until(lambda: box.status()[0].failures >= 2)
    assert box.status()[0].last_error == "nobody is there"
    there.set()
    assert box.flush(10)
    assert numbers(slow) == list(range(10))
    box.close()


def test_what_waits_survives_closing(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box.sqlite", [Receiver(fault=away)], QUICK)
    ids = [box.put({"n": n}) for n in range(5)]
    box.close()
    with pytest.raises(ValueError, match="closed"):
        box.put({})
    again = Receiver()
    box = Outbox(tmp_path / "box.sqlite", [again], QUICK)
    ids.append(box.put({"n": 5}))
    assert box.flush(10)
    assert again.tried == ids
    box.close()


def test_a_refused_message_is_set_aside_with_its_reason_and_can_be_sent_again(tmp_path: Path) -> None:
    healed = threading.Event()

    def poison(message: Message, _tries: int) -> Exception | None:
        bad = json.loads(message.body)["n"] == 1 and not healed.is_set()
        return OutputError("422: no such field", refused=True) if bad else None

    receiver = Receiver(fault=poison)
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    ids = [box.put({"n": n}) for n in range(3)]
    assert box.flush(10)
    assert numbers(receiver) == [0, 2]
    (aside,) = box.aside("receiver")
    assert (aside.message.id, aside.tries, aside.reason) == (ids[1], 3, "422: no such field")
    assert box.status()[0].aside == 1
    box.close()
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    assert len(box.aside("receiver")) == 1
    healed.set()
    assert box.send_again("receiver") == 1
    assert box.flush(10)
    assert numbers(receiver) == [0, 2, 1]
    assert box.aside("receiver") == []
    box.close()


def test_a_receiver_that_is_busy_is_not_refusing(tmp_path: Path) -> None:
    """Refusals alone count: many tries in vain, and one refusal, set nothing aside."""
    answers = [OutputError("503")] * 6 + [OutputError("400", refused=True)] * 2
    receiver = Receiver(fault=lambda _message, tries: answers[tries - 1] if tries <= len(answers) else None)
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    box.put({"n": 0})
    assert box.flush(10)
    assert numbers(receiver) == [0]
    assert len(receiver.tried) == 9
    box.close()


def test_an_output_with_a_fault_of_its_own_is_tried_again(tmp_path: Path) -> None:
    receiver = Receiver(fault=lambda _message, tries: KeyError("oops") if tries < 3 else None)
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    box.put({"n": 0})
    assert box.flush(10)
    assert len(receiver.tried) == 3
    box.close()


def test_waits_are_doubled_up_to_the_longest_and_heed_the_receiver(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box.sqlite", [], QueueLimits(first_wait=1, longest_wait=30))
    for tries, most in ((1, 1), (2, 2), (5, 16), (6, 30), (500, 30)):
        assert 0.75 * most <= box._wait(tries, None) <= most
    assert box._wait(1, 12) == 12
    assert box._wait(1, 1e9) == 30
    box.close()


def test_a_full_queue_drops_the_oldest_and_counts(tmp_path: Path) -> None:
    limits = QueueLimits(messages=4, first_wait=5, longest_wait=5)
    one, two = Receiver("one", away), Receiver("two", away)
    box = Outbox(tmp_path / "box.sqlite", [one, two], limits)
    for n in range(10):
        box.put({"n": n})
    assert box.pending() == {"one": 4, "two": 4}
    assert [s.dropped for s in box.status()] == [6, 6]
    box.close()
    with sqlite3.connect(tmp_path / "box.sqlite") as database:
        assert database.execute("SELECT COUNT(*) FROM messages").fetchone() == (4,)
    heard = Receiver("one")
    box = Outbox(tmp_path / "box.sqlite", [heard], QUICK)
    assert box.flush(10)
    assert numbers(heard) == [6, 7, 8, 9]
    assert box.status()[0].dropped == 6
    box.close()


def test_what_is_too_old_is_dropped_and_counted(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box.sqlite", [Receiver(fault=away), Receiver("gone", away)], QUICK)
    for n in range(3):
        box.put({"n": n})
    box.close()
    with sqlite3.connect(tmp_path / "box.sqlite") as database:
        database.execute("UPDATE messages SET at = at - 86400 * 8 WHERE id < 3")
    receiver = Receiver()
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    assert box.flush(10)
    assert numbers(receiver) == [2]
    assert box.status()[0].dropped == 2
    box.close()
    with sqlite3.connect(tmp_path / "box.sqlite") as database:
        left = database.execute("SELECT output FROM waiting").fetchall()
    assert left == [("gone",)], "an output that is not there now: what is too old goes, the rest waits"


def test_messages_set_aside_are_limited(tmp_path: Path) -> None:
    limits = QueueLimits(aside=2, tries=1, first_wait=0.01, longest_wait=0.01)
    box = Outbox(tmp_path / "box.sqlite", [Receiver(fault=lambda *_: OutputError("no", refused=True))], limits)
    for n in range(5):
        box.put({"n": n})
    assert box.flush(10)
    assert [json.loads(a.message.body)["n"] for a in box.aside("receiver")] == [3, 4]
    assert box.status()[0].dropped == 3
    box.close()


def test_bad_files_and_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two outputs are same"):
        Outbox(tmp_path / "box.sqlite", [Receiver("same"), Receiver("same")])
    (tmp_path / "none.sqlite").write_text("this is no database at all, but long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"none\.sqlite"):
        Outbox(tmp_path / "none.sqlite", [Receiver()])
    with sqlite3.connect(tmp_path / "other.sqlite") as database:
        database.execute("CREATE TABLE other (x)")
    with pytest.raises(StoreError, match="no queue to the line"):
        Outbox(tmp_path / "other.sqlite", [Receiver()])
    with pytest.raises(StoreError, match="cannot be used"):
        Outbox(tmp_path / "missing" / "box.sqlite", [Receiver()])
    box = Outbox(tmp_path / "box.sqlite", [Receiver(fault=away)])
    with pytest.raises(ValueError, match="JSON"):
        box.put({"score": float("nan")})
    assert box.pending() == {"receiver": 0}, "half a message is none"
    box.close()


KILLED = """
import itertools, sys, time
from pathlib import Path
from andon.inspection.station.outbox import Outbox, OutputError, QueueLimits

class Log:
    name = "log"
    def send(self, message):
        with open(sys.argv[2], "ab") as file:
            file.write(message.body + b"\\n")
        time.sleep(0.002)
    def close(self): pass

box = Outbox(Path(sys.argv[1]), [Log()], QueueLimits(first_wait=0.01))
for n in itertools.count(int(sys.argv[3])):
    print(box.put({"n": n}), flush=True)
"""


def test_a_killed_process_loses_no_message_and_keeps_the_order(tmp_path: Path) -> None:
    """Three times killed -9 while it queues and sends; a last one sends what is left."""
    log = tmp_path / "log.jsonl"
    acknowledged: list[str] = []
    for round_ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "box.sqlite"), str(log), str(1000 * round_)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(40 + 30 * round_)]
        os.kill(process.pid, signal.SIGKILL)
        # What it said before it died was acknowledged too.
        acknowledged += [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait()
    acknowledged = [line.strip() for line in acknowledged]
    receiver = Receiver("log")
    box = Outbox(tmp_path / "box.sqlite", [receiver], QUICK)
    assert box.flush(60)
    box.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()] + receiver.got
    ids = [line["message_id"] for line in lines]
    first_seen = list(dict.fromkeys(ids))
    assert set(acknowledged) <= set(ids)
    assert [i for i in first_seen if i in set(acknowledged)] == acknowledged
    assert len(ids) - len(first_seen) <= 3, "a twin a death at most"


def wait_until(condition: Callable[[], bool], timeout: float = 10) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
