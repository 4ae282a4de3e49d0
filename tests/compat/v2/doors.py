"""What a program of Daytona's second generation does to find its sandbox, by four ways.

It runs in an environment of its own, beside the first generation's client, which has the same name.
"""

# The client that mypy sees is of the first generation.
# mypy: ignore-errors

import asyncio
import os

from daytona import AsyncDaytona, Daytona, DaytonaConfig
from daytona.v2 import AsyncSandbox, NotSupportedError, Sandbox
from daytona.v2._bridge import SyncBridge

BASE = os.environ["DAYTONA_API_URL"]

# A: the URL of the toolbox, and no control plane.
raw = AsyncSandbox.from_api({"id": "sb1"}, None, None, toolbox_url=BASE, access_token="tok")
assert Sandbox(raw, SyncBridge()).id == "sb1"

# B: a control plane, and the toolbox's URL given.
with Daytona(DaytonaConfig(api_key="k")) as daytona:
    assert daytona.v2.get("local", toolbox_url=BASE).id == "local"

# C: the daemon is its own control plane.
with Daytona() as daytona:
    sandbox = daytona.v2.get("local")
    assert (sandbox.name, sandbox.state) == ("local", "started"), (sandbox.name, sandbox.state)

# D: from its creation to its end.
with Daytona() as daytona:
    sandbox = daytona.v2.create(
        "python:3.12", name="mate", env={"A": "1"}, labels={"x": "y"}, cpu=1.0, memory=1,
        wait_seconds=60,
    )  # fmt: skip
    assert (sandbox.id, sandbox.name, sandbox.state) == ("local", "mate", "started")
    assert daytona.v2.get("local").labels["x"] == "y"
    assert [each.id for each in daytona.v2.find_by_name("mate")] == ["local"]
    assert [each.id for each in daytona.v2.list().items] == ["local"]
    assert [each.id for each in daytona.v2.iter()] == ["local"]
    sandbox.set_labels(labels={"p": "q"})
    assert daytona.v2.get("local").labels == {"p": "q"}
    sandbox.wait()
    daytona.v2.stop(sandbox)
    assert sandbox.state == "stopped", sandbox.state
    sandbox.start()
    assert sandbox.state == "started", sandbox.state
    for call in (
        lambda: sandbox.fs.read_text("x"),
        lambda: sandbox.git.status("/"),
        lambda: daytona.v2.images.list(),
        lambda: daytona.v2.snapshots.list(),
        sandbox.fork,
        sandbox.pause,
    ):
        try:
            call()
        except NotSupportedError as error:
            refusal = str(error)
        else:
            refusal = ""
        assert "not supported by procd" in refusal, refusal
    daytona.v2.delete(sandbox)
    assert sandbox.state == "destroyed", sandbox.state


async def at_once() -> None:
    """D, asynchronously and many times."""
    async with AsyncDaytona() as daytona:
        sandboxes = await asyncio.gather(*(daytona.v2.create() for _ in range(20)))
        assert {each.id for each in sandboxes} == {"local"}
        await daytona.v2.delete(sandboxes[0])


asyncio.run(at_once())
print("done")  # noqa: T201 - the test reads it
