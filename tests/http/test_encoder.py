"""JSON where there is no memory for it: MemoryError, and no crash."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from procd.http.encoder import encoded, most_bytes

# Takes all memory there is but for so many bytes, to the last block of the heap, and then encodes.
POOR = """
import resource, sys
from procd.api.interpreter_frames import frame
from procd.http.encoder import encoded
from procd.http.output_text import OutputText
from procd.http.responses import whole_json
from procd.output.buffer import Buffer
left_bytes, call = int(sys.argv[1]), compile(sys.argv[2], "", "eval")
text = "x" * 120_000
kept = Buffer(1 << 20)
kept.append(text.encode())
held = [None] * 1_000_000
spare = [bytearray(200) for _ in range(100)]  # for what Python itself takes, too little for more
spare.append(bytearray(left_bytes))
with open("/proc/self/statm") as file:
    mapped = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (mapped, limits[1]))
count = 0
for size in (1 << 20, 64 << 10, 4 << 10, 1 << 10, 513, 16):
    try:
        while True:
            held[count] = bytearray(size)
            count += 1
    except MemoryError:
        continue
spare.clear()
try:
    outcome = eval(call)
except MemoryError:
    outcome = None
resource.setrlimit(resource.RLIMIT_AS, limits)
held.clear()
print("none" if outcome is None else "right" if outcome == eval(call) else "wrong")
"""


@pytest.mark.parametrize(
    ("left_bytes", "call", "outcomes"),
    [
        (0, "encoded({})", {"none", "right"}),
        (0, "encoded({'exitCode': 0, 'result': ''})", {"none", "right"}),
        (0, "encoded('\\0' * 4096)", {"none"}),
        (16 << 10, "encoded({'version': 'v0.1.0'})", {"right"}),
        (16 << 10, "encoded(text, len(text))", {"none"}),
        (800 << 10, "encoded(text, len(text))", {"right"}),
        (800 << 10, "whole_json({'message': text})", {"right"}),
        (800 << 10, "whole_json({'result': OutputText(kept)})", {"right"}),
        (800 << 10, "frame('stdout', text=text)", {"right"}),
    ],
)
def test_without_memory(left_bytes: int, call: str, outcomes: set[str]) -> None:
    said = subprocess.run(
        (sys.executable, "-c", POOR, str(left_bytes), call),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip() in outcomes


MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC)
VALUES = [
    {"at": MOMENT, "é": None},
    {},
    '\0\x1f\x7f"\\/\n\t\u2028é€\U0001f600',
    [1, -2.5, True, {"a": [{}]}],
]


def test_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """With little memory they are as with much."""
    assert encoded(VALUES[0]) == '{"at":"2026-01-02T03:04:05.000600Z","é":null}'.encode()
    with_much = [encoded(value) for value in VALUES]
    monkeypatch.setattr("procd.http.encoder.ROOM_BYTES", 1 << 50)
    assert [encoded(value) for value in VALUES] == with_much


def test_bytes_that_are_no_utf_8() -> None:
    assert encoded({"path": os.fsdecode(b"a\xff\xc3b")}) == '{"path":"a\ufffd\ufffdb"}'.encode()


def test_most_bytes() -> None:
    for text in ("", "a", "é", "a\u20ac", "\U0001f600" * 3):
        assert len(text.encode()) <= most_bytes(text) <= 4 * len(text)
