"""The entry point of the command `procd`."""

import gc
import signal
from typing import Final

# Allocations between garbage collections, which take milliseconds with thousands of sessions.
GC_THRESHOLD: Final = 50_000


def main() -> None:
    """Run the command that the arguments name.

    Until that is imported SIGINT ends this process silently; `Commands.invoke` restores it.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(GC_THRESHOLD)
    gc.disable()  # until the command is imported: nothing of that is garbage
    from procd.cli.commands import procd

    procd()
