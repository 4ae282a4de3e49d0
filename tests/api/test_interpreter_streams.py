"""Streams that a cell puts in place of ours: they are its own, and the next cell has ours."""

from pathlib import Path
from typing import Any

from tests.aliases import MakeClient
from tests.api.cells import create, run, said
from tests.api.clients import each

WRAPPED = "import io, sys\n{kept}sys.{name} = io.TextIOWrapper(sys.{name}.buffer, encoding='utf-8')"
OPENED = "import sys\n{kept}sys.{name} = open(sys.{name}.fileno(), 'w', encoding='utf-8')"


@each("kept", ["", "out = "])
async def _printed(client: Any, kept: str) -> None:
    for name in ("stdout", "stderr"):
        for replace in (WRAPPED, OPENED):
            code = f"{replace.format(kept=kept, name=name)}\nprint('own', end='', file=sys.{name})"
            context_id = await create(client)
            # Twice, as in a notebook. What is opened anew is closed by the second, as anywhere.
            for _ in range(2 if replace is WRAPPED else 1):
                cell = await run(client, code, contextId=context_id)
                assert (getattr(cell, name), cell.errors) == ("own", []), code
            for text in ("two", "three"):
                cell = await run(client, f"print({text!r}, file=sys.{name})", contextId=context_id)
                assert (getattr(cell, name), cell.errors) == (f"{text}\n", []), code
            if kept and replace is WRAPPED:
                code = f"del out; print('four', file=sys.{name})"
                cell = await run(client, code, contextId=context_id)
                assert (getattr(cell, name), cell.errors) == ("four\n", [])


async def test_print_after_streams_of_the_cells_own(procd: MakeClient) -> None:
    await _printed(client=await procd())


async def test_a_file_does_not_take_the_descriptor_of_a_stream(
    procd: MakeClient, tmp_path: Path
) -> None:
    client = await procd()
    path = tmp_path / "data"
    for replaced in (
        "sys.stdout = open(1, 'w')",
        "sys.stderr = open(2, 'w')",
        "sys.stdin = open(0)",
        "sys.__stdout__ = sys.stdout = open(1, 'w')",
    ):
        assert not await said(client, f"import os, sys\n{replaced}")
        code = f"""
file = open({str(path)!r}, 'w')
print('hello'); r = os.system('echo child')
r = file.write('data\\n'); file.flush()
print(file.fileno() > 2, repr(sys.stdin.read()))
file.close()
"""
        assert await said(client, code) == "hello\nchild\nTrue ''\n"
        assert path.read_text() == "data\n"


async def test_the_end_of_a_stream_belongs_to_its_cell(procd: MakeClient) -> None:
    client = await procd()
    code = """
import sys
class Tee:
    def __init__(self, stream): self.stream = stream
    def write(self, text): return self.stream.write(text)
    def flush(self): pass
    def __del__(self):
        self.write('gone|')
        print('printed|', end='')
        sys.stdout = self.stream
sys.stdout = Tee(sys.stdout)
print('in|', end='')
"""
    assert await said(client, code) == "in|gone|printed|"
    assert await said(client, "print('next')") == "next\n"


UNFLUSHED = [
    "class S:\n  def write(self, t): pass\nsys.stdout = S()",
    "class S:\n  def __getattr__(self, n): raise OSError('gone')\nsys.stdout = S()",
    "raw = sys.stdout.detach()",
    "sys.stdout = open('/dev/full', 'w'); print('lost')",
]


@each("code", UNFLUSHED)
async def _unflushed(client: Any, code: str) -> None:
    cell = await run(client, f"import sys\n{code}\nx = 5")
    cell.check_completed()
    assert cell.errors == []
    assert await said(client, "print(x, flush=True)") == "5\n"


async def test_streams_that_cannot_be_flushed(procd: MakeClient) -> None:
    await _unflushed(client=await procd())
