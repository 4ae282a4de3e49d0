"""JSON where there is no memory for it: MemoryError, and no crash."""

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from procd.api.encoder import encoded, most_bytes

# Takes all memory there is, down to blocks of some size, and then encodes.
POOR = """
import resource, sys
from procd.api.cells import frame
from procd.api.encoder import encoded
from procd.api.output_text import OutputText
from procd.api.reply import whole_json
from procd.streams.backlog import Backlog
least, call = int(sys.argv[1]), compile(sys.argv[2], "", "eval")
text = "x" * 120_000
kept = Backlog(1 << 20)
kept.append(text.encode())
held = [None] * 1_000_000
spare = [bytearray(200) for _ in range(100)]  # for what Python itself takes, too little for more
with open("/proc/self/statm") as file:
    mapped = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (mapped, limits[1]))
count = 0
for size in (1 << 20, 64 << 10, 4 << 10, 1 << 10, 513, 16):
    try:
        while size >= least:
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
print(outcome)
"""


@pytest.mark.parametrize(
    ("least", "call"),
    [
        (1, "encoded({})"),
        (1, "encoded({'exitCode': 0, 'result': ''})"),
        (1, "encoded('\\0' * 4096)"),
        (1 << 20, "encoded(text, len(text))"),
        (1 << 20, "whole_json({'message': text})"),
        (1 << 20, "whole_json({'result': OutputText(kept)})"),
        (1 << 20, "frame('stdout', text=text)"),
    ],
)
def test_without_memory(least: int, call: str) -> None:
    said = subprocess.run(
        (sys.executable, "-c", POOR, str(least), call), capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "None\n", "")


def test_values() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert encoded({"at": moment, "é": None}) == '{"at":"2026-01-02T03:04:05Z","é":null}'.encode()
    with pytest.raises(TypeError):
        encoded("\udc80")


def test_most_bytes() -> None:
    for text in ("", "a", "é", "a\u20ac", "\U0001f600" * 3):
        assert len(text.encode()) <= most_bytes(text) <= 4 * len(text)
