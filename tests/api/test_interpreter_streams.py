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


async def test_files_are_not_where_streams_were(procd: MakeClient, tmp_path: Path) -> None:
    # What a cell opens isn't what the next one prints to.
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


async def test_last_words_of_streams(procd: MakeClient) -> None:
    # They are of the cell that has put them there, and so is what they do at their end.
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
    code = """
class Holder:
    def __init__(self): self.file = open(1, 'w')
    def write(self, text): return self.file.write(text)
    def flush(self): pass
sys.stdout = Holder()
print('held')
"""
    assert await said(client, code) == "held\n"
    assert await said(client, "print('next')") == "next\n"


async def test_a_stream_whose_end_never_comes(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    code = """
import sys
class Stuck:
    def write(self, text): pass
    def flush(self): pass
    def __del__(self):
        while True: pass
x = 5
sys.stdout = Stuck()
"""
    assert (await run(client, code, timeout=1)).close == (4008, "")
    assert await said(client, "print(x)") == "5\n"


async def test_the_other_end_of_the_same_pipe(procd: MakeClient) -> None:
    # The pipe is the same file, whichever end of it is open.
    client = await procd()
    for number, name in ((1, "stdout"), (2, "stderr")):
        code = (
            f"import os, sys\nfd = os.open('/proc/self/fd/{number}', os.O_RDONLY | os.O_NONBLOCK)\n"
            f"r = os.dup2(fd, {number}); os.close(fd)"
        )
        assert not await said(client, code)
        cell = await run(client, f"print('seen', file=sys.{name})")
        assert (getattr(cell, name), cell.errors) == ("seen\n", [])


async def test_a_fork_while_another_thread_prints(procd: MakeClient) -> None:
    # The thread that has the stream doesn't live on in the child, which is to have it all the same.
    client = await procd()
    code = """
import os, sys, threading, warnings
warnings.simplefilter('ignore')  # Python 3.12 warns of just that
reading, writing = os.pipe()
os.dup2(writing, 1); os.close(writing)
thread = threading.Thread(target=print, args=('x' * 200_000,))
def begin():  # called at the fork, when stdout was flushed
    del sys.stderr.buffer.flush
    thread.start()
    os.read(reading, 1)  # it is in the midst of its write, for which there is no room
sys.stderr.buffer.flush = begin
if os.fork() == 0:
    os.dup2(os.open('/dev/null', os.O_WRONLY), 1)
    print('child')
    os._exit(7)
print(os.WEXITSTATUS(os.wait()[1]), file=sys.stderr)
left = 200_000
while left: left -= len(os.read(reading, left))
thread.join()
"""
    cell = await run(client, code, timeout=10)
    assert (cell.stderr, cell.errors, cell.close) == ("7\n", [], (1000, ""))
    assert await said(client, "print('next')") == "next\n"


UNFLUSHED = [
    "class S:\n  def write(self, t): pass\nsys.stdout = S()",
    "class S:\n  def __getattr__(self, n): raise OSError('gone')\nsys.stdout = S()",
    "raw = sys.stdout.detach()",
    "sys.stdout.flush = None",
    "sys.stdout = open('/dev/full', 'w'); print('lost')",
]


@each("code", UNFLUSHED)
async def _unflushed(client: Any, code: str) -> None:
    cell = await run(client, f"import sys\n{code}\nx = 5")
    cell.check_completed()
    assert cell.errors == []
    assert await said(client, "print(x, flush=True)") == "5\n"


async def test_streams_that_cannot_be_flushed(procd: MakeClient) -> None:
    # The code itself has raised nothing.
    await _unflushed(client=await procd())


async def test_methods_of_streams_are_not_for_the_next_cell(procd: MakeClient) -> None:
    client = await procd()
    for name in ("stdout", "stderr"):
        for method in ("write", "flush", "buffer.write", "buffer.flush"):
            assert not await said(client, f"import sys\nsys.{name}.{method} = lambda *a: 1 / 0")
            cell = await run(client, f"print('seen', file=sys.{name}, flush=True)")
            assert (getattr(cell, name), cell.errors) == ("seen\n", [])
