"""`procd exec`, start to finish, beside an interpreter that does nothing."""

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from bench.programs import Place, Program, environment
from bench.report import Report, median, percentile

RUNS: Final = 15
TARGET_MS: Final = 150
# What the installed script does.
CLIENT: Final = "from procd.cli.main import main; main()"


def measure(report: Report, place: Place, procd: Program, rounds: int) -> None:
    """The rows of this group."""
    report.start("cli")
    env = environment(place.home) | {"PROCD_URL": f"http://127.0.0.1:{procd.port}"}
    nothing = (sys.executable, "-c", "pass")
    client = (sys.executable, "-c", CLIENT, "exec", "--", "true")
    floors: list[float] = []
    values: list[float] = []
    for _ in range(rounds):
        floors.append(_p50_ms(nothing, env))
        values.append(_p50_ms(client, env))
    report.add(
        "`procd exec -- true`, p50", "ms", values, floor_name="python -c pass", floors=floors,
        target=f"<= {TARGET_MS} ms", met=lambda *_: median(values) <= TARGET_MS,
    )  # fmt: skip


def _p50_ms(arguments: Sequence[str], env: dict[str, str]) -> float:
    taken = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        subprocess.run(arguments, env=env, stdin=subprocess.DEVNULL, check=True)
        taken.append((time.perf_counter() - begin) * 1000)
    return percentile(taken, 50)
