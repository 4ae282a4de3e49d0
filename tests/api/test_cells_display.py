"""Cells with `display`: they run as those without it do, and show what a notebook would."""

from typing import Any

import pytest

from tests.aliases import MakeClient
from tests.api.cells import Cell, create, run, said
from tests.api.clients import each

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
    ("loop = asyncio.get_running_loop()\nawait w()", "7"),
    ("q = [asyncio.ensure_future(w()) for _ in range(2)]\nawait asyncio.gather(*q)", "[7, 7]"),
    ("first = asyncio.current_task(); await w()\nfirst is asyncio.current_task()", "True"),
    ("token = variable.set(5)\nawait asyncio.sleep(0, variable.get())", "5"),
    ("token = variable.set(6); await w()\nvariable.get()", "6"),
    ("await w()\nw.__name__", "'w'"),
    ("value = await w()\nvalue + 1", "8"),
    ("t = asyncio.create_task(w())\nprint(await t)", None),
    ("[await w() for _ in range(2)]", "[7, 7]"),
]


@each(("code", "value"), AWAITING)
async def _awaiting(client: Any, code: str, value: str | None) -> None:
    cell = await run(client, code, display=True)
    assert shown(cell) == ([value] if value else [])
    assert cell.stdout == await said(client, code)


async def test_cells_that_await(procd: MakeClient) -> None:
    client = await procd()
    assert await said(client, START) == ""
    await _awaiting(client=client)


async def test_a_task_goes_on_in_the_next_cell(procd: MakeClient) -> None:
    client = await procd()
    await said(client, START)
    cell = await run(client, "t = asyncio.create_task(shout()); await w()", display=True)
    assert shown(cell) == ["7"]
    cell = await run(client, "await t", display=True)
    assert (shown(cell), cell.stdout) == ([], "shouted\n")


async def test_what_goes_wrong_in_either_part(procd: MakeClient) -> None:
    client = await procd()
    await said(client, START)
    error = (await run(client, "x = await w()\n1 / 0", display=True)).error
    assert '  File "<stdin>", line 2, in <module>\n    1 / 0\n' in error["traceback"]
    assert error["traceback"].count("File") == 1
    error = (await run(client, "1 / 0\nawait w()", display=True)).error
    assert '  File "<stdin>", line 1, in <module>\n    1 / 0\n' in error["traceback"]
    assert error["traceback"].count("File") == 1
    for code in ("t = asyncio.create_task(w())\nexit(await t)", "exit(await w())\nw"):
        cell = await run(client, code, display=True)
        assert shown(cell) == ["exit(7)"]
    # What can't be compiled isn't begun with.
    cell = await run(client, "print('begun')\n(yield)", display=True)
    assert (cell.error["name"], cell.stdout) == ("SyntaxError", "")


async def test_time_up_while_awaiting(procd: MakeClient) -> None:
    client = await procd(interpreter={"grace_s": 3600.0})
    await said(client, START)
    for last in ("await asyncio.sleep(3600)", "asyncio.current_task()"):
        code = f"t = asyncio.create_task(w())\nx = await t\nawait asyncio.sleep(3600)\n{last}"
        assert (await run(client, code, display=True, timeout=1)).close == (4008, "")
        assert shown(await run(client, "x + await w()", display=True)) == ["14"]


SEMICOLONS = [
    ("[1, 2, 3];", []),
    ("x = 5\nx ;  # no value", []),
    ("(\n1\n# ; in here\n) ; ", []),
    ("é = 'é'; é;", []),
    ("'a;' \\\n 'b' ;\n\n# the end", []),
    ("x \\\r\n;", []),
    ("await asyncio.sleep(0, 5);", []),
    ("print('a'); x", ["5"]),
    ("x  # ;", ["5"]),
    ("';'", ["';'"]),
    ("f'{x};'", ["'5;'"]),
    ("'''\n;'''", ["'\\n;'"]),
    ("(\n'é;',\n# ;\n)", ["('é;',)"]),
    ("x\n# the end;", ["5"]),
    ("display(x);", ["5"]),
]


@each(("code", "values"), SEMICOLONS)
async def _semicolons(client: Any, code: str, values: list[str]) -> None:
    assert await said(client, "import asyncio\nx = 5") == ""
    assert shown(await run(client, code, display=True)) == values


async def test_a_semicolon_at_the_end_keeps_the_value_to_itself(procd: MakeClient) -> None:
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
    assert await show("_ + 1") == ["44"]
    await show("_ = 'mine'")
    assert await show("5") == ["5"]
    assert await show("_") == ["'mine'"]
    await show("del _")
    assert await show("8") == ["8"]
    assert await show("_") == ["8"]
    async with client.get(f"/process/interpreter/context/{context_id}/variables") as reply:
        assert [variable["name"] for variable in (await reply.json())["variables"]] == ["x"]


async def test_the_last_value_is_not_kept_for_who_has_let_go_of_it(procd: MakeClient) -> None:
    client = await procd()
    context_id = await create(client)
    make = "import weakref\nclass B: pass\nb = B()\nr = weakref.ref(b)\nb"
    for letting_go in ("_ = None", "del _"):
        await run(client, make, contextId=context_id, display=True)
        await run(client, f"del b; {letting_go}", contextId=context_id)
        assert await said(client, "print(r())", contextId=context_id) == "None\n"
        await run(client, "_ = 1; del _", contextId=context_id)


async def test_a_name_that_gettext_installs_is_not_hidden(procd: MakeClient) -> None:
    client = await procd()
    install = "import gettext; gettext.install('x'); _('hello')"
    assert shown(await run(client, install, display=True)) == ["'hello'"]
    assert shown(await run(client, "_('hello')", display=True)) == ["'hello'"]


@pytest.mark.parametrize("display", [False, True])
async def test_imports_from_the_future_hold(procd: MakeClient, display: bool) -> None:
    client = await procd()
    context_id = await create(client)
    code = "def f(a: Missing): pass\nprint(f.__annotations__)"
    assert (await run(client, code)).error["name"] == "NameError"
    future = "from __future__ import annotations\n"
    cell = await run(client, future, contextId=context_id, display=display)
    cell.check_completed()
    for shows in (display, not display):
        cell = await run(client, code, contextId=context_id, display=shows)
        assert (cell.stdout, cell.errors) == ("{'a': 'Missing'}\n", [])
    # Nor does it hold anywhere else.
    assert (await run(client, code)).error["name"] == "NameError"


async def test_input_asks_though_nobody_answers(procd: MakeClient) -> None:
    client = await procd()
    cell = await run(client, "input('q? ')")
    assert cell.kinds == ["stdout", "error", "control"]
    assert (cell.stdout, cell.error["name"]) == ("q? ", "EOFError")
    assert (await run(client, "input()")).stdout == ""
