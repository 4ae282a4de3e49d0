"""Modules that are seen to when they are imported, whatever loads them."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from procd.worker.on_import import on_import

NAME = "procd_seen_to"


class Loader:
    """Runs a module's code, which is empty."""

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system is to make it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        module.ran = True  # type: ignore[attr-defined]  # as any module's code may


class OfClass(Loader):
    """As one class loads all modules that are frozen into Python."""

    create_module = classmethod(lambda _, spec: None)
    exec_module = classmethod(lambda _, module: setattr(module, "ran", True))


class OfOld:
    """It has no method to run a module's code apart: zipimporter of Python 3.9."""


class Finder:
    """Finds the module."""

    def __init__(self, loader: object) -> None:
        self.loader = loader

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Where it is."""
        return ModuleSpec(name, self.loader) if name == NAME else None  # type: ignore[arg-type]  # any


@pytest.fixture(autouse=True)
def finders(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test adds is gone afterwards."""
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.delitem(sys.modules, NAME, raising=False)


@pytest.mark.parametrize("loader", [Loader(), OfClass], ids=["object", "class"])
def test_a_module_is_seen_to(loader: object) -> None:
    """Right after its code has run; what it says of its loader is true."""
    seen = []
    sys.meta_path.append(Finder(loader))
    on_import(NAME, lambda module: seen.append((module.__name__, module.ran, module.__loader__)))
    module = __import__(NAME)
    assert seen == [(NAME, True, loader)]
    assert module.__spec__ is not None
    assert module.__spec__.loader is loader


def test_a_loader_of_old_is_left_alone() -> None:
    """The import system knows what to do with it."""
    loader: object = OfOld()
    sys.meta_path.append(Finder(loader))
    on_import(NAME, lambda _: None)
    spec = sys.meta_path[0].find_spec(NAME, None)
    assert spec is not None
    assert spec.loader is loader
