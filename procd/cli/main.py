"""The command `procd`, as its console script runs it."""

import gc
import signal
from typing import Final

# Allocations between collections: a start makes much and leaves no garbage, and with thousands of
# sessions each collection takes milliseconds.
GC_THRESHOLD: Final = 50_000


def main() -> None:
    """Run what the arguments say.

    Python's own handler of SIGINT raises KeyboardInterrupt wherever this process is, with a
    traceback in the midst of imports. Until there is somebody to catch that, SIGINT just ends it;
    `Commands.invoke` has the handler back. Who was started with SIGINT ignored goes on ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(GC_THRESHOLD)
    from procd.cli.commands import procd

    procd()
