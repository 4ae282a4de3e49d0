"""Waiting until something holds."""

import asyncio
from collections.abc import Callable

WAIT_S = 30


async def until(fact: Callable[[], bool]) -> None:
    """Wait until `fact` holds."""
    async with asyncio.timeout(WAIT_S):
        while not fact():
            await asyncio.sleep(0)
