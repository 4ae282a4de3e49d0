"""python -m procd."""

import sys

from procd.cli.main import main

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The directory that this was started in: what procd imports later must not come from there,
        # where users may write.
        del sys.path[0]
    main()
