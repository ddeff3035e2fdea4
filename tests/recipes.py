"""The recipes in `experiments/`, by name."""

import importlib

from tests.architecture_test import ROOT

EXPERIMENTS = [
    path.stem for path in sorted((ROOT / "experiments").glob("*.py")) if "def get_config(" in path.read_text()
]


def get_config(experiment, *preset):
    return importlib.import_module(f"experiments.{experiment}").get_config(*preset)
