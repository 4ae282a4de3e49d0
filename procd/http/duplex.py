"""Both directions of a WebSocket at once."""

import asyncio
import traceback
from collections.abc import Coroutine


async def serve_both_ways(
    reading: Coroutine[object, None, None], writing: Coroutine[object, None, None], name: str
) -> None:
    """Write to a client while it is read from, which ends both; that it goes is its right.

    Args:
        name: of the task that writes.
    """
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(writing, name=name)
            try:
                await reading
            finally:
                task.cancel()
    except* ConnectionError as gone:
        # Frames of aiohttp's and of the group's have what keeps these: all that was to be sent
        # would stay until a collection.
        for exc in (gone, *gone.exceptions):
            traceback.clear_frames(exc.__traceback__)
