"""The builtins as they were when the interpreter started.

Whoever of us runs after the user's code takes them for its own: what the user's code then makes of
`len` or `compile` isn't done to us.

Source: Python's reference, "Builtins and restricted execution": a module's functions look for
builtins in its `__builtins__`.
"""

from __future__ import annotations

import builtins

BUILTINS = dict(vars(builtins))
