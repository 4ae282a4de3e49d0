"""Cells with `display`: they run as those without it do, and show what a notebook would."""

import base64
import json
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.aliases import MakeClient
from tests.api.cells import EXECUTE, Cell, create, run, said
from tests.api.clients import each, raw


def exit_bundle(status: int) -> dict[str, Any]:
    return {"application/vnd.procd.exit+json": status, "text/plain": f"exit({status})"}


RICH = """
class Rich:
    def __repr__(self): return 'rich'
    def _repr_html_(self): return '<b>'
    def _repr_markdown_(self): return '*b*'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'png', {'width': 1}
    def _repr_jpeg_(self): return b'jpeg'
    def _repr_latex_(self): return '$x$'
    def _repr_javascript_(self): return 'alert(1)'
    def _repr_json_(self): return {'a': [1, None]}
Rich()
"""
RICH_BUNDLE = {
    "text/plain": "rich",
    "text/html": "<b>",
    "text/markdown": "*b*",
    "image/svg+xml": "<svg/>",
    "image/png": "cG5n",
    "image/jpeg": "anBlZw==",
    "text/latex": "$x$",
    "application/javascript": "alert(1)",
    "application/json": {"a": [1, None]},
}
BUNDLE = """
class Bundle:
    def __repr__(self): return 'b'
    def _repr_mimebundle_(self, include=None, exclude=None): return {'x/y': 1}, {}
Bundle()
"""
BAD = """
class Bad:
    def __repr__(self): raise ValueError
    def _repr_html_(self): raise ValueError
    def _repr_json_(self): return object()
    def __getattr__(self, name): raise RuntimeError(name)
Bad()
"""
WRONG = """
class Wrong:
    def __repr__(self): return 'wrong'
    def _repr_mimebundle_(self, **_): return ()
    def _repr_html_(self): return 5
    def _repr_markdown_(self): return ()
    def _repr_svg_(self): return b'<svg/>'
    def _repr_png_(self): return 5.0
    def _repr_jpeg_(self): return 'anBlZw=='
    def _repr_latex_(self): return ['$x$'], {}
    def _repr_javascript_(self): return {}
    def _repr_json_(self): return float('nan')
Wrong()
"""
SURROGATES = """
class Halves:
    def __repr__(self): return 'a\\ud800'
    def _repr_html_(self): return '\\udfff€😀'
    def _repr_mimebundle_(self, **_): return {'\\ud800': {'\\ud801': ['\\ud802', '\\ud83d']}}
Halves()
"""
SURROGATES_BUNDLE = {
    "\\ud800": {"\\ud801": ["\\ud802", "\\ud83d"]},
    "text/html": "\\udfff€😀",
    "text/plain": "a\\ud800",
}
BIG = "class Big:\n  def __repr__(self): return 'x' * (5 << 20)\nBig()"
DISPLAYS = [
    ("1 + 1", [{"text/plain": "2"}]),
    ("'a'; 'b'", [{"text/plain": "'b'"}]),
    ("x = 1", []),
    ("None", []),
    ("raise SystemExit", [exit_bundle(0)]),
    ("exit('why')", [exit_bundle(1)]),
    ("import sys; sys.exit(259)", [exit_bundle(3)]),
    ("import sys; sys.exit(-1)", [exit_bundle(255)]),
    ("display(1, 'two')", [{"text/plain": "1"}, {"text/plain": "'two'"}]),
    ("import asyncio\nawait asyncio.sleep(0, 3)", [{"text/plain": "3"}]),
    ("import unittest.mock; m = unittest.mock.Mock(); 5", [{"text/plain": "5"}]),
    (RICH, [RICH_BUNDLE]),
    (BUNDLE, [{"text/plain": "b", "x/y": 1}]),
    (BAD, [{"text/plain": "<repr failed: ValueError>"}]),
    (WRONG, [{"text/plain": "wrong", "image/jpeg": "anBlZw=="}]),
    (SURROGATES, [SURROGATES_BUNDLE]),
    (BIG, [{"text/plain": f"[{(5 << 20) + 2} bytes are too large to be shown]"}]),
]


@each(("code", "results"), DISPLAYS)
async def _displays(client: Any, code: str, results: list[dict[str, Any]]) -> None:
    cell = await run(client, code, display=True)
    assert not cell.errors, cell.errors
    cell.check_completed()
    assert cell.results == results


async def test_displays(procd: MakeClient) -> None:
    client = await procd()
    await _displays(client=client)
    assert not (await run(client, "1 + 1")).results
    assert (await run(client, "display(1)")).error["name"] == "NameError"
    error = (await run(client, "x =", display=True)).error
    assert error["traceback"].startswith('  File "<stdin>", line 1\n    x =\n'), error
    # What can't be compiled does not begin.
    cell = await run(client, "print('begun')\n(yield)", display=True)
    assert (cell.error["name"], cell.stdout) == ("SyntaxError", "")


async def test_displays_in_order(procd: MakeClient) -> None:
    client = await procd()
    code = "for n in range(200):\n  print(f'before {n}'); display(n); print(f'after {n}')"
    cell = await run(client, code, display=True)
    cell.check_completed()
    shown = "".join(
        frame["data"]["text/plain"] + "\n" if frame["type"] == "result" else frame["text"]
        for frame in cell.frames[:-1]
    )
    assert shown == "".join(f"before {n}\n{n}\nafter {n}\n" for n in range(200))


async def test_displays_before_the_process_dies(procd: MakeClient) -> None:
    client = await procd()
    code = "import os\nfor n in range(5): display(n)\nos._exit(1)"
    cell = await run(client, code, display=True)
    assert cell.close == (1011, "worker process ended")
    assert [bundle["text/plain"] for bundle in cell.results] == ["0", "1", "2", "3", "4"]


async def test_displays_in_threads(procd: MakeClient) -> None:
    client = await procd()
    code = """
import threading
shown = display
def work(letter):
    for _ in range(20):
        shown(letter * 100_000)
threads = [threading.Thread(target=work, args=(letter,)) for letter in 'abc']
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    cell = await run(client, code, display=True)
    cell.check_completed()
    got = [bundle["text/plain"] for bundle in cell.results]
    assert sorted(got) == sorted(repr(letter * 100_000) for letter in "abc" * 20)
    late = "t = threading.Timer(0.05, lambda: shown('late')); t.start()"
    assert not (await run(client, late, display=True)).results
    assert await said(client, "t.join(); print('fine')") == "fine\n"


async def test_displays_wait_for_the_client(procd: MakeClient) -> None:
    client = await procd()
    code = "for n in range(60):\n  display(str(n) + 'x' * 800_000)"
    async with raw(client, receive_bytes=64 << 10) as connection:
        await connection.upgrade(EXECUTE)
        await connection.send_frame(1, json.dumps({"code": code, "display": True}).encode())
        for number in range(60):
            frame = json.loads(await connection.next(1))
            assert frame["data"]["text/plain"].startswith(f"'{number}x")
        assert json.loads(await connection.next(1))["text"] == "completed"


START = """
import asyncio, contextvars
async def w(): return 7
async def shout():
    await asyncio.sleep(0)
    print('shouted')
variable = contextvars.ContextVar('variable', default=0)
"""


def shown(cell: Cell) -> list[str]:
    """The values displayed by a cell that did nothing else worth telling."""
    assert (cell.errors, cell.stderr) == ([], "")
    cell.check_completed()
    return [bundle["text/plain"] for bundle in cell.results]


AWAITING = [
    ("t = asyncio.create_task(w())\nawait t", "7"),
    ("q = [asyncio.ensure_future(w()) for _ in range(2)]\nawait asyncio.gather(*q)", "[7, 7]"),
    ("first = asyncio.current_task(); await w()\nfirst is asyncio.current_task()", "True"),
    ("token = variable.set(6); await w()\nvariable.get()", "6"),
    ("await w()\nw.__name__", "'w'"),
    ("t = asyncio.create_task(w())\nprint(await t)", None),
    ("[await w() for _ in range(2)]", "[7, 7]"),
]


@each(("code", "value"), AWAITING)
async def _awaiting(client: Any, code: str, value: str | None) -> None:
    cell = await run(client, code, display=True)
    assert shown(cell) == ([value] if value else [])
    assert cell.stdout == await said(client, code)


async def test_cells_that_await(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    assert await said(client, START) == ""
    await _awaiting(client=client)
    # A task goes on in the next cell.
    cell = await run(client, "t = asyncio.create_task(shout()); await w()", display=True)
    assert shown(cell) == ["7"]
    cell = await run(client, "await t", display=True)
    assert (shown(cell), cell.stdout) == ([], "shouted\n")
    for code in ("x = await w()\n1 / 0", "1 / 0\nawait w()"):
        error = (await run(client, code, display=True)).error
        assert "<module>\n    1 / 0\n" in error["traceback"]
        assert error["traceback"].count("File") == 1
    cell = await run(client, "exit(await w())\nw", display=True)
    assert shown(cell) == ["exit(7)"]
    code = "x = await w()\nawait asyncio.sleep(3600)\nx"
    assert (await run(client, code, display=True, timeout=3)).close == (4008, "")
    assert shown(await run(client, "x + await w()", display=True)) == ["14"]


SEMICOLONS = [
    ("[1, 2, 3];", []),
    ("x = 5\nx ;  # no value", []),
    ("(\n1\n# ; in here\n) ; ", []),
    ("é = 'é'; é;", []),
    ("'a;' \\\n 'b' ;\n\n# the end", []),
    ("await asyncio.sleep(0, 5);", []),
    ("print('a'); x", ["5"]),
    ("x  # ;", ["5"]),
    ("f'{x};'", ["'5;'"]),
    ("'''\n;'''", ["'\\n;'"]),
    ("(\n'é;',\n# ;\n)", ["('é;',)"]),
    ("display(x);", ["5"]),
]


@each(("code", "values"), SEMICOLONS)
async def _semicolons(client: Any, code: str, values: list[str]) -> None:
    assert await said(client, "import asyncio\nx = 5") == ""
    assert shown(await run(client, code, display=True)) == values


async def test_a_semicolon_at_the_end_hides_the_value(procd: MakeClient) -> None:
    await _semicolons(client=await procd())


async def test_the_last_value_has_a_name(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)

    async def show(code: str) -> list[str]:
        return shown(await run(client, code, contextId=context_id, display=True))

    error = (await run(client, "_", contextId=context_id, display=True)).error
    assert error["name"] == "NameError"
    assert await show("6 * 7") == ["42"]
    for code in ("None", "x = 1", "1;", "display(2)", "print()"):
        await show(code)
    assert await show("_ + 1") == ["43"]
    await show("_ = 'mine'")
    assert await show("5") == ["5"]
    assert await show("_") == ["'mine'"]
    await show("del _")
    assert await show("8") == ["8"]
    assert await show("_") == ["8"]
    async with client.get(f"/process/interpreter/context/{context_id}/variables") as reply:
        assert [variable["name"] for variable in (await reply.json())["variables"]] == ["x"]
    install = "import gettext; gettext.install('x'); _('hello')"
    assert shown(await run(client, install, display=True)) == ["'hello'"]
    assert shown(await run(client, "_('hello')", display=True)) == ["'hello'"]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="there is no matplotlib")
async def test_figures(procd: MakeClient) -> None:
    client = await procd(interpreter={"python": sys.executable})
    code = "import matplotlib.pyplot as plt\nfigure = plt.figure()\nplt.plot([1, 2])"
    cell = await run(client, f"print('a')\n{code}\nplt.show()\nprint('b')", display=True)
    assert not cell.errors, cell.errors
    assert cell.kinds == ["stdout", "result", "stdout", "control"]
    assert base64.b64decode(cell.results[0]["image/png"]).startswith(b"\x89PNG")
    # A figure that is open at the end is shown, too, and one that is the value is a picture.
    cell = await run(client, f"{code} and None", display=True)
    assert [bundle.keys() for bundle in cell.results] == [{"text/plain", "image/png"}]
    # A figure that was shown before is shown again in another cell.
    cell = await run(client, f"{code}\nplt.show()\nplt.show()", display=True)
    assert len(cell.results) == 1
    cell = await run(client, f"{code}\nplt.close()\nfigure", display=True)
    assert [bundle.keys() for bundle in cell.results] == [{"text/plain", "image/png"}]
    cell = await run(client, f"{code}\nplt.show()")
    assert cell.kinds == ["control"]
