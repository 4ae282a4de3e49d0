"""The interpreter under each Python that is installed, from 3.8 on."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.aliases import MakeClient
from tests.api.cells import create, run, said
from tests.waiting import until

CHECK = "import sys; print(sys.executable) if sys.version_info >= (3, 8) else sys.exit(1)"


def _pythons() -> list[str]:
    found: dict[str, str] = {}
    for minor in range(8, 16):
        path = shutil.which(f"python3.{minor}")
        if path is None:
            continue
        result = subprocess.run([path, "-c", CHECK], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            found[f"3.{minor}"] = result.stdout.strip()
    return list(found.values())


# Of what the module and those that it takes are at least, compiled.
TRACEBACK_BYTES = 20_000

each_python = pytest.mark.parametrize("python", _pythons())


@each_python
async def test_each_python(procd: MakeClient, python: str) -> None:
    client = await procd(interpreter={"python": python, "grace_s": 0.3})
    context_id = await create(client)
    code = (
        "import asyncio\nasync def f(): return await asyncio.sleep(0, x)\nx = 1\nprint(await f())"
    )
    assert await said(client, code, contextId=context_id) == "1\n"
    error = (await run(client, "def g():\n  1 / 0\ng()", contextId=context_id)).error
    assert error["name"] == "ZeroDivisionError"
    assert '  File "<stdin>", line 2, in g\n    1 / 0\n' in error["traceback"]
    error = (await run(client, "x = (1,,", contextId=context_id)).error
    assert '  File "<stdin>", line 1\n' in error["traceback"]
    assert error["traceback"].count("File") == 1
    cell = await run(
        client, "print('a'); display(x); print('b'); x", contextId=context_id, display=True
    )
    assert cell.kinds == ["stdout", "result", "stdout", "result", "control"]
    cell = await run(client, "while True: pass", contextId=context_id, timeout=1)
    assert cell.close == (4008, "")
    assert await said(client, "print(x)", contextId=context_id) == "1\n"


# Modules that tracebacks and displays take late, as far as this Python hasn't loaded them before.
LATE = ("ast", "binascii", "token", "tokenize", "unicodedata")


@each_python
async def test_modules_of_the_users_by_the_names_of_late_ones(
    procd: MakeClient, python: str, tmp_path: Path
) -> None:
    for name in LATE:
        (tmp_path / f"{name}.py").write_text(f"print('my {name}')")
    (tmp_path / "lib.py").write_text("def fail():\n    return 'é' and 1 / 0")
    client = await procd(interpreter={"python": python}, process={"work_dir": str(tmp_path)})
    code = "import lib\ndef f():\n    return 'é' and lib.fail()\nf()"
    for _ in range(2):
        cell = await run(client, code)
        assert "    return 'é' and 1 / 0\n" in cell.error["traceback"]
        assert cell.stdout == ""
    picture = "class P:\n    def _repr_png_(self): return b'png'\nP()"
    cell = await run(client, picture, display=True)
    assert (cell.results[0]["image/png"], cell.stdout) == ("cG5n", "")
    for _ in range(2):  # also where they have been imported
        assert await said(client, "import ast, sys; print(sys.modules.pop('ast') is ast)") == (
            "my ast\nTrue\n"
        )
        cell = await run(client, f"import ast\n{code}")
        assert "    return 'é' and 1 / 0\n" in cell.error["traceback"]
        assert cell.stdout == "my ast\n"
        assert await said(client, "print(sys.modules.pop('ast') is ast)") == "True\n"


# Modules that tracebacks take, and that this Python may not have loaded before.
HEAVY = ("enum", "functools", "keyword", "linecache", "operator", "re", "traceback", "types")


@each_python
async def test_modules_of_the_users_by_the_names_of_heavy_ones(
    procd: MakeClient, python: str, tmp_path: Path
) -> None:
    for name in HEAVY:
        (tmp_path / f"{name}.py").write_text(f"print('my {name}')")
    client = await procd(interpreter={"python": python}, process={"work_dir": str(tmp_path)})
    code = f"""
import _imp, sys
print(*[name for name in {HEAVY} if name not in sys.modules and not _imp.is_frozen(name)])
"""
    theirs = (await said(client, code)).split()
    for name in theirs:
        code = f"import {name}; mine = {name}\ndef f(): return 1 / 0\nf()"
        cell = await run(client, code)
        assert "    def f(): return 1 / 0\n" in cell.error["traceback"]
        assert cell.stdout == f"my {name}\n"
        assert await said(client, f"print(sys.modules['{name}'] is mine)") == "True\n"
        assert await said(client, f"del sys.modules['{name}']; import {name}") == f"my {name}\n"


@each_python
async def test_lines_of_cells_are_found(procd: MakeClient, python: str) -> None:
    client = await procd(interpreter={"python": python})
    cell = "def f():\n    return 1 / 0\n"
    code = "import linecache; print(linecache.getline(f.__code__.co_filename, 2), end='')"
    assert await said(client, f"{cell}{code}") == "    return 1 / 0\n"
    assert "    return 1 / 0\n" in (await run(client, "f()")).error["traceback"]
    again = f"import sys; del sys.modules['linecache']\n{code}"
    assert await said(client, again) == "    return 1 / 0\n"
    assert await said(client, f"\n{cell}{code}") == "def f():\n"
    assert "    return 1 / 0\n" in (await run(client, "f()")).error["traceback"]


@each_python
async def test_an_error_where_nothing_can_be_imported(procd: MakeClient, python: str) -> None:
    client = await procd(interpreter={"python": python, "warm": 0})
    code = "import sys; sys.path_importer_cache.clear(); sys.meta_path.clear()\nraise KeyError(1)"
    text = (await run(client, code)).error["traceback"]
    assert text.startswith('Traceback (most recent call last):\n  File "<stdin>", line 2, in')
    assert text.endswith("    raise KeyError(1)\nKeyError: 1\n")


@each_python
async def test_errors_where_imports_are_broken_leave_nothing_behind(
    procd: MakeClient, python: str
) -> None:
    client = await procd(interpreter={"python": python, "warm": 0})
    assert "KeyError: 1" in (await run(client, "raise KeyError(1)")).error["traceback"]
    code = (
        "import sys, types, re\nclass Odd(types.ModuleType):\n"
        "  def __getattribute__(self, name): raise ValueError\n"
        "sys.modules['token'] = Odd('token')\n"
        "sys.modules['re'] = types.ModuleType('re')\n"
        "sys.path_importer_cache.clear(); sys.path_hooks = None; print(len(sys.meta_path))"
    )
    count = await said(client, code)
    for _ in range(2):
        assert "KeyError: 1" in (await run(client, "raise KeyError(1)")).error["traceback"]
    assert await said(client, "print(len(sys.meta_path))") == count
    assert await said(client, "print(type(sys.modules['token']).__name__)") == "Odd\n"


@each_python
async def test_what_tells_of_errors_is_loaded_in_a_quiet_moment(
    procd: MakeClient, python: str
) -> None:
    client = await procd(interpreter={"python": python, "warm": 0})
    pid = int(await said(client, "import os, sys\nprint(os.getpid())"))
    await _has_loaded_what_tells_of_errors(pid)
    assert await said(client, "print('traceback' in sys.modules)") == "True\n"


@each_python
async def test_lines_of_cells_before_the_quiet_moment_are_found(
    procd: MakeClient, python: str
) -> None:
    client = await procd(interpreter={"python": python, "warm": 0})
    cell = "import os\ndef f():\n    return 1 / 0\nprint(os.getpid())"
    await _has_loaded_what_tells_of_errors(int(await said(client, cell)))
    code = "import linecache; print(linecache.getline(f.__code__.co_filename, 3), end='')"
    assert await said(client, code) == "    return 1 / 0\n"


async def _has_loaded_what_tells_of_errors(pid: int) -> None:
    """Wait for it, in an interpreter that has just run its first cell."""
    before = _read_bytes(pid)
    await until(lambda: _read_bytes(pid) >= before + TRACEBACK_BYTES)  # of compiled modules


def _read_bytes(pid: int) -> int:
    """How much a process has read."""
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(counts["rchar"])


@each_python
async def test_monitoring_rests_between_cells(procd: MakeClient, python: str) -> None:
    client = await procd(interpreter={"python": python, "grace_s": 0.3})
    code = """
import sys
if not hasattr(sys, 'monitoring'): sys.exit()  # before Python 3.12
def note(code, line):
    places.append(code.co_filename)
    if code.co_filename.endswith(('channel.py', 'encoding.py')): 1 / 0
places = []
monitoring = sys.monitoring
monitoring.use_tool_id(3, 'note')
monitoring.register_callback(3, monitoring.events.LINE, note)
monitoring.set_events(3, monitoring.events.LINE)
"""
    assert not await said(client, code)
    assert not await said(client, "places = []")
    code = "print('monitoring' not in globals() or '<stdin-3>' in places)"
    assert await said(client, code) == "True\n"
