"""The interpreter under each Python that is installed, from 3.8 on."""

import shutil
import subprocess

import pytest

from tests.aliases import MakeClient
from tests.api.cells import create, run, said

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


@pytest.mark.parametrize("python", _pythons())
async def test_each_python(procd: MakeClient, python: str) -> None:
    client = await procd(interpreter={"python": python, "grace_s": 3.0})
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
    code = "import inspect\ndef f(): return 5\nprint(inspect.getsource(f), end='')"
    assert await said(client, code, contextId=context_id) == "def f(): return 5\n"
    cell = await run(client, "while True: pass", contextId=context_id, timeout=3)
    assert cell.close == (4008, "")
    assert await said(client, "print(x)", contextId=context_id) == "1\n"
    async with client.get(f"/process/interpreter/context/{context_id}/variables") as reply:
        names = {variable["name"] for variable in (await reply.json())["variables"]}
    assert {"f", "g", "x"} <= names
