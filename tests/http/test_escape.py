"""Long text as JSON: the same as in one piece, and no crash without memory."""

import random
import subprocess
import sys

import orjson
import pytest

from procd.http.escape import SAMPLE, SLICE, escaped

# Has little memory left and encodes text that would take more, in several ways.
POOR = """
import resource, sys
from procd.http.escape import escaped
texts = ["x" * size for size in (100_000, 300_000, 1_000_000)]
texts += [like * (len(text) // 3) for text in texts for like in ("\\u20ac\\n", "\\n", '"')]
with open("/proc/self/statm") as file:
    mapped = int(file.read().split()[0]) * resource.getpagesize()
limits = resource.getrlimit(resource.RLIMIT_AS)
for spare in range(0, 20 << 20, 100 << 10):
    for text in texts:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + spare, limits[1]))
        try:
            size = sum(map(len, escaped(text)))
        except MemoryError:
            size = None
        resource.setrlimit(resource.RLIMIT_AS, limits)
        print(spare, len(text), size)
"""


@pytest.mark.parametrize(
    "alphabet",
    ["ab", "a\n", 'a"\\\x00\x7f', "a\xe9", "a\u20ac", "a\U0001f600",
     "\n", "\\x1b\n", "a\n\t\r\\", "a\n\x1b", "a\n\x7f", 'a"', 'aaaaaa"', "aaaaaa\n", "a\n\xe9"],
)  # fmt: skip
def test_pieces_are_one_string(alphabet: str) -> None:
    dice = random.Random(1)
    for size in (0, 1, 1000, SLICE, SLICE + 1, 3 * SLICE):
        text = "".join(dice.choices(alphabet, k=size))
        assert orjson.loads(b'"%b"' % b"".join(escaped(text))) == text


def test_text_that_changes() -> None:
    """It is told by its beginning what text is like, and may be another further on."""
    for begin in ("\n", "x\n", "1234567\n", "123456789\n", "\\\n", "\t\x7f\n", '"', "x"):
        for rest in ("\x1b[0m", '"', "\\x", "\u20ac", "\ud7ff\x00"):
            for text in (begin * SAMPLE + rest, (begin * SAMPLE)[1:] + rest, begin + rest):
                assert orjson.loads(b'"%b"' % b"".join(escaped(text))) == text


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("\n", True), ("1234567\n", True), ("123456789\n", True), ("1234567890\n", False),
        ("12345\n1234567\n", False), ("1234\n" * 99 + "12\n", False), ("1234567", False),
        ('123"567\n', False), ("123\x1b567\n", False), ("123567\u20ac\n", False),
        ("1\n1\n1\n123\n", False),
    ],
)  # fmt: skip
def test_short_lines_of_one_length(
    text: str, literal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are faster without orjson, and all else is with it."""
    others: list[str] = []

    def other(part: str, _: int) -> bytes:
        others.append(part)
        return b'""'

    monkeypatch.setattr("procd.http.escape.encoded", other)
    text = (text * SAMPLE)[:SLICE]
    made = b"".join(escaped(text))
    assert (made, others) == ((orjson.dumps(text)[1:-1], []) if literal else (b"", [text]))


def test_without_memory() -> None:
    said = subprocess.run((sys.executable, "-c", POOR), capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    outcomes = {line.endswith("None") for line in said.stdout.splitlines()}
    assert outcomes == {True, False}
