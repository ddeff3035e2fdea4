"""The house plan as a test: which part may import which, and what a run loads."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "dfn_jax"
# What each part may import of the project; ops is the foundation and imports nothing but itself.
MAY_IMPORT = {
    "ops": {"ops"},
    "models": {"models", "ops"},
    "data": {"data", "errors", "files", "progress"},
    "losses": {"ops"},
    "metrics": {"losses"},
    "intervals": {"losses"},
    "trivial": {"losses"},
    "visualize": set(),
    "progress": set(),
    "report": {"files"},
    "preemption": set(),
    "errors": {"preemption"},
    "files": {"errors"},
    "huge_pages": set(),
    "guards": {"errors"},
    "config": {"errors", "files"},
    "workdir": {"config", "errors", "files"},
    "parallel": {"errors"},
    "processes": {"errors", "preemption"},
    "optimisers": {"config"},
    "records": {"files"},
    "checkpoint": {"errors", "files", "processes"},
    "tasks": {
        "config", "data", "errors", "losses", "metrics", "models", "ops", "parallel", "progress", "report", "tasks",
        "trivial", "visualize",
    },
    "train_step": {"config", "optimisers", "parallel", "tasks"},
    "train": {
        "checkpoint", "config", "errors", "guards", "optimisers", "parallel", "preemption", "processes", "progress",
        "provenance", "records", "tasks", "train_step",
    },
    "pretrained": {"config", "errors", "files", "parallel", "recorded", "tasks", "train"},
    "recorded": {"config", "errors", "files", "workdir"},
    "stablehlo": {"config", "errors", "files", "parallel", "pretrained", "recorded", "tasks", "train"},
    "predict": {"errors", "files", "parallel", "progress", "tasks", "visualize"},
    "experiment": {
        "checkpoint", "config", "errors", "evaluate", "files", "parallel", "predict", "preemption", "pretrained",
        "processes", "provenance", "records", "tasks", "train", "train_step", "workdir",
    },
    "command_line": {"errors"},
    "provenance": set(),
    "evaluate": {
        "config", "errors", "files", "intervals", "parallel", "provenance", "records", "report", "tasks", "train_step",
        "visualize", "workdir",
    },
}  # fmt: skip


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), "an import relative to the file hides whose it is"
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dfn_jax":
            rest = node.module.split(".")[1:]
            names |= {rest[0]} if rest else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("dfn_jax.")}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_arrow_back(path):
    if path == PACKAGE / "__init__.py":
        assert not imports(path)
        return
    assert imports(path) <= MAY_IMPORT[part(path)] | {part(path)}


def test_recipes_and_tools_are_not_known_to_what_they_use():
    """`reproduce` knows `experiments`, and both the package: not the other way round."""
    for folder, others in (("dfn_jax", "experiments|reproduce"), ("experiments", "reproduce")):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(rf"^ *(from|import) ({others})\b", path.read_text(), re.MULTILINE), path


def test_no_arrow_is_allowed_that_nobody_uses():
    used = {name: set() for name in MAY_IMPORT}
    for path in PACKAGE.rglob("*.py"):
        if path != PACKAGE / "__init__.py":
            used[part(path)] |= imports(path)
    assert {name: found - {name} for name, found in used.items()} == {n: may - {n} for n, may in MAY_IMPORT.items()}


def test_training_knows_no_task_by_name():
    for name in ("train", "train_step", "evaluate", "predict"):
        for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dfn_jax.tasks"):
                assert node.module == "dfn_jax.tasks.task"


@pytest.mark.parametrize("name", ["checkpoints", "convolutions", "data", "ops", "plot", "train_step"])
def test_benchmarks_can_be_begun_without_pytorch(name, monkeypatch):
    """Which only what they are compared with needs; and they use what there is."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert importlib.import_module(f"benchmarks.{name}").main


def test_a_run_on_the_embedded_data_loads_only_what_it_needs():
    """Until a report or real pairs are asked for, neither TFDS, Grain, matplotlib, Pillow nor TensorBoard is loaded."""
    code = """
import sys
from experiments import moving_mnist, stereo
from dfn_jax.tasks import make_task
from dfn_jax import train, evaluate
config = stereo.get_config("smoke")
make_task(config).train_batch(0)
config.eval.name, config.eval.dir = "pairs", "unused"
make_task(config)  # for predictions, too
config = moving_mnist.get_config("smoke")
config.data.digits = "drawn"
make_task(config)
heavy = {"tensorflow", "tensorflow_datasets", "grain", "matplotlib", "PIL", "tensorboardX"} & sys.modules.keys()
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=300)
