"""How the browser and the server under test are started."""

from pathlib import Path

OPTIONS = [
    "--no-sandbox",  # root has none in a container
    "--disable-gpu",
    "--host-resolver-rules=MAP forbidden.test 127.0.0.1",
]


def plain(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a server whose shells are plain."""
    return {
        "HOME": str(home),
        "PROCD_PROCESS_SHELL": "/bin/bash",
        "PROCD_INTERPRETER_WARM": "0",
        "LANG": "C.UTF-8",
        **settings,
    }
