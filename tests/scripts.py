"""Import the scripts of benchmarks/ and examples/, some of which have the same name."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


ROOT = Path(__file__).resolve().parents[1]


def load_script(path: str) -> ModuleType:
    """Import a script anew, such as "benchmarks/crf.py", under a name of its own."""
    spec = spec_from_file_location(path.removesuffix(".py").replace("/", "_"), ROOT / path)
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    return script
