import inspect
import subprocess
import sys

import pytest

from dfn_jax import ops

ARRAYS = {"images", "filters", "vertical", "horizontal", "logits", "bias"}


@pytest.fixture(params=ops.__all__)
def operation(request):
    return getattr(ops, request.param)


def test_docstring_has_its_sections(operation):
    docstring = inspect.getdoc(operation)
    assert docstring.splitlines()[0].endswith(".")
    for section in ("Args:", "Returns:", "Raises:", "Source:"):
        assert f"\n{section}" in docstring
    for name in inspect.signature(operation).parameters:
        assert f"\n    {name}: " in docstring


def test_arrays_come_first_and_options_are_keyword_only(operation):
    parameters = list(inspect.signature(operation).parameters.values())
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    assert all(p.default is p.empty for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    flow = operation.__module__ == "dfn_jax.ops.flow"  # the kernel size is what the taps mean, no option
    assert set(positional) <= (ARRAYS | {"kernel_size"} if flow else ARRAYS)


def test_operations_need_jax_alone_and_nothing_else_of_the_project():
    others = ("flax", "optax", "orbax", "absl", "ml_collections", "grain", "tensorflow_datasets", "matplotlib", "PIL")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({others})); import dfn_jax.ops; "
        "print(*[name for name in sys.modules if name.startswith('dfn_jax')])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert all(name == "dfn_jax" or name.startswith("dfn_jax.ops") for name in printed.split())
