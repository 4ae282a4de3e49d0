"""pyplot.show() in processes of the user's, whichever way it is come by."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from procd.worker import pyplot_hook

# As a runner would have it: nothing of procd's but this package, under a name of its own.
DRIVER = """
import json, sys, types
worker, artifacts = sys.argv[1:]
package = types.ModuleType("_procd_worker")
package.__path__ = [worker]
sys.modules["_procd_worker"] = package
from _procd_worker.pyplot_hook import install
with open(artifacts, "w") as out:
    install(lambda artifact: print(json.dumps(artifact, allow_nan=False), file=out, flush=True))
    exec(compile(sys.stdin.read(), "<user>", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the user's code told."""

    charts: list[dict[str, Any]]
    output: str

    @property
    def titles(self) -> list[str | None]:
        return [chart.get("title") for chart in self.charts]


class Python:
    """Runs code of the user's, without a display unless told otherwise."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def run(self, code: str, *options: str, **env: str) -> Run:
        """The code must end well and write nothing to stderr."""
        artifacts = self._directory / "artifacts"
        absent = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND")
        inherited = {name: value for name, value in os.environ.items() if name not in absent}
        ended = subprocess.run(
            [
                *(sys.executable, *options, "-c", DRIVER),
                *(str(Path(pyplot_hook.__file__).parent), str(artifacts)),
            ],
            cwd=self._directory,
            input=code,
            env=inherited | env,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        told = [json.loads(line) for line in artifacts.read_text().splitlines()]
        assert all(set(artifact) == {"type", "value"} for artifact in told)
        assert all(artifact["type"] == "chart" for artifact in told)
        return Run(charts=[artifact["value"] for artifact in told], output=ended.stdout)


@pytest.fixture
def python(tmp_path: Path) -> Python:
    return Python(tmp_path)


@pytest.mark.parametrize(
    "imports",
    [
        "import matplotlib.pyplot as plt; show = plt.show",
        "from matplotlib import pyplot as plt; show = plt.show",
        "from matplotlib.pyplot import show; import matplotlib.pyplot as plt",
        "import importlib; plt = importlib.import_module('matplotlib.pyplot'); show = plt.show",
        "plt = __import__('matplotlib.pyplot', fromlist=['show']); show = plt.show",
        "from pylab import *; import pylab as plt",
        "import importlib, matplotlib.pyplot as p; plt = importlib.reload(p); show = plt.show",
    ],
)
def test_show_is_known_by_any_name(python: Python, imports: str) -> None:
    run = python.run(f"{imports}\nplt.plot([1, 2, 3], label='a')\nplt.title('T')\nshow()\n")
    (chart,) = run.charts
    assert (chart["type"], chart["title"]) == ("line", "T")
    assert chart["elements"] == [{"label": "a", "points": [[0, 1], [1, 2], [2, 3]]}]
    assert chart["png"]


def test_each_figure_that_is_open_is_told_once(python: Python) -> None:
    run = python.run("""
import matplotlib.pyplot as plt
for name in "abc":
    plt.figure()
    plt.plot([1, 2, 3])
    plt.title(name)
plt.close(2)
plt.show()
print(plt.get_fignums())
plt.show()
plt.bar(["x"], [1])
plt.title("later")
plt.savefig("saved.png")
plt.show(block=False)
plt.plot([1, 2, 4])
plt.savefig("saved.png")
""")
    assert run.titles == ["a", "c", "later"]
    assert [chart["type"] for chart in run.charts] == ["line", "line", "bar"]
    assert run.output == "[]\n"


@pytest.mark.parametrize(
    ("before", "env", "backend"),
    [
        ("", {}, "agg"),
        ("", {"MPLBACKEND": "svg"}, "svg"),
        ("import matplotlib; matplotlib.use('pdf')", {}, "pdf"),
        ("import matplotlib; matplotlib.use('agg')", {"DISPLAY": ":no-such-display"}, "agg"),
    ],
)
def test_the_users_backend_is_kept_and_does_not_complain(
    python: Python, before: str, env: dict[str, str], backend: str
) -> None:
    code = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.show()
plt.gcf().show()
print(plt.get_backend().lower())
"""
    run = python.run(before + code, **env)
    assert run.output == f"{backend}\n"
    assert [chart["type"] for chart in run.charts] == ["line", "unknown"]
    assert all(chart["png"] for chart in run.charts)


def test_drawing_does_not_warn_nor_fail_where_warnings_are_errors(python: Python) -> None:
    run = python.run("""
import warnings
import matplotlib.pyplot as plt
plt.plot([1, 2, 3])
plt.title("no glyph: \\U00012345")
warnings.simplefilter("error")
plt.show()
try:
    warnings.warn("mine")
except UserWarning:
    print("still an error")
""")
    (chart,) = run.charts
    assert chart["png"]
    assert run.output == "still an error\n"


def test_a_figure_that_fails_does_not_break_show(python: Python) -> None:
    run = python.run("""
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
class Broken(Line2D):
    def draw(self, renderer):
        raise ZeroDivisionError
    def get_xydata(self):
        raise ZeroDivisionError
plt.gca().add_line(Broken([1, 2], [3, 5]))
plt.figure()
plt.plot([1, 2, 3])
plt.show()
print(plt.get_fignums())
""")
    assert run.charts[0] == {"type": "unknown", "elements": []}
    assert run.charts[1]["type"] == "line"
    assert run.output == "[]\n"


def test_code_that_does_not_plot_pays_nothing(python: Python) -> None:
    run = python.run(
        """
import sys
print([name for name in sys.modules if name.startswith(("_procd", "matplotlib", "numpy"))])
print("importlib.util" in sys.modules, "typing" in sys.modules)
""",
        "-I",
        "-S",
    )
    ours = "['_procd_worker', '_procd_worker.isolation', '_procd_worker.pyplot_hook']"
    assert run.output == f"{ours}\nFalse False\n"
    assert run.charts == []
