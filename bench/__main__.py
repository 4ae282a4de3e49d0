"""The command line: which groups to measure, and where the figures go."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench import command_line, execute, http, interpreter, load, sessions, shells, start
from bench.programs import Place
from bench.report import Report

GROUPS: Final = (
    "start",
    "http",
    "gate",
    "execute",
    "busy",
    "output",
    "echo",
    "stream",
    "idle",
    "attached",
    "shells",
    "many",
    "interpreter",
    "load",
    "cli",
)


def main() -> None:
    """Measure and print; whatever the figures, this succeeds."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure procd beside its floors.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there as well")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer sessions")
    options = parser.parse_args()
    if unknown := set(options.names) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    names = options.names or GROUPS
    rounds = 2 if options.quick else 5
    report = Report()
    with tempfile.TemporaryDirectory(prefix="procd-bench-") as home:
        place = Place(home)
        if "start" in names:
            start.measure(report, place, rounds)
        with place.procd() as procd, place.server() as server:
            if "http" in names:
                http.measure(report, procd, server, rounds)
            if "execute" in names:
                execute.measure(report, place, procd, rounds)
            if "busy" in names:
                execute.measure_busy(report, place, procd, rounds)
            if "output" in names:
                execute.measure_output(report, place, procd, rounds * 6)
            if "echo" in names:
                sessions.measure_echo(report, place, procd, server, rounds * 2)
            if "stream" in names:
                sessions.measure_output(report, place, procd, rounds)
            if "shells" in names:
                shells.measure(report, place, procd, server, rounds)
            if "interpreter" in names:
                interpreter.measure(report, place, server, rounds)
            if "cli" in names:
                command_line.measure(report, place, procd, rounds)
        if "gate" in names:
            http.measure_gate(report, place, rounds)
        if "load" in names:
            load.measure(report, place, rounds)
        if "many" in names:
            shells.measure_many(report, place, 100 if options.quick else 1000)
        if "idle" in names:
            sessions.measure_idle(report, place, rounds * 2, 200 if options.quick else 1000)
        if "attached" in names:
            sessions.measure_attached(report, place, rounds)
    print(report.table())
    if options.json is not None:
        report.write_json(options.json)
        print(f"figures written to {options.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
