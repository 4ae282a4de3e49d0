"""The bundle's program: undo what PyInstaller's launcher did to the environment, and run procd.

The launcher prepends the bundle's libraries to LD_LIBRARY_PATH, and sets variables for a program
that starts itself again. What procd starts must see neither.

Source: PyInstaller's manual, "LD_LIBRARY_PATH / LIBPATH considerations".
"""

import os

from procd.cli.main import main

os.environ.pop("LD_LIBRARY_PATH", None)
if (given := os.environ.pop("LD_LIBRARY_PATH_ORIG", None)) is not None:
    os.environ["LD_LIBRARY_PATH"] = given
for name in [name for name in os.environ if name.startswith("_PYI_")]:
    del os.environ[name]
main()
