"""What has left the kernel while there was no memory to keep it: it waits as it is."""

from collections.abc import Callable


class Owed:
    """Pieces of one stream that are to be taken, oldest first; true if there are any."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, data: bytes) -> None:
        """Have taken what is newer than all that waits."""
        self._pieces.append(data)

    def put_first(self, pieces: list[bytes]) -> None:
        """Have taken what is older than all that waits; the list is ours from now on."""
        if self._pieces:
            self._pieces[:0] = pieces
        else:
            self._pieces = pieces  # which takes no memory

    def pay(self, take: Callable[[bytes], None]) -> None:
        """Have all of it taken. Who takes a piece may call this, add more or `clear` it.

        Raises:
            MemoryError: there still is none for the first of those that wait now.
        """
        while self._pieces:
            pieces = self._pieces
            data, pieces[0] = pieces[0], b""
            try:
                if data:
                    take(data)
            except MemoryError:
                if pieces:  # else it was cleared
                    pieces[0] = data
                raise
            if pieces and not pieces[0]:  # else that is done, or what is there now is newer
                del pieces[0]

    def clear(self) -> None:
        """Forget it."""
        self._pieces.clear()
