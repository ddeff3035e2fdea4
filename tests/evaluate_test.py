"""Where results go, and which commit they are said to be of."""

import subprocess

import pytest

from dfn_jax import evaluate, provenance
from dfn_jax.config import results_folder
from experiments import stereo


@pytest.mark.parametrize(
    ("own", "asked", "folder"),
    [
        ({}, {}, ""),
        ({"eval.best": True, "eval.name": "pairs", "eval.dir": "/a"}, {}, ""),
        ({}, {"eval.best": True}, "evaluations/best-True"),
        ({"eval.best": True}, {"eval.best": False}, "evaluations/best-False"),
        ({}, {"eval.examples": 3, "precision": "bfloat16"}, "evaluations/examples-3_bfloat16"),
        ({}, {"eval.name": "pairs"}, "evaluations/pairs"),
        ({"eval.name": "pairs", "eval.dir": "/a"}, {"eval.name": "", "eval.dir": ""}, "evaluations/highway"),
        ({}, {"eval.name": "pairs", "eval.dir": "/a/test"}, "evaluations/test-"),
    ],
)
def test_an_evaluation_on_the_runs_own_terms_is_the_runs_own(own, asked, folder, tmp_path):
    config = stereo.get_config("smoke")
    config.update_from_flattened_dict(own)
    (tmp_path / "config.json").write_text(config.to_json_best_effort())
    config.update_from_flattened_dict(asked)
    found = str(results_folder(tmp_path, config))
    assert found.startswith(folder) if folder.endswith("-") else found == (folder or ".")


@pytest.mark.parametrize(
    ("starts", "steps", "told"),
    [
        ([(0, "a")], 4, "a"),
        ([(0, "a"), (2, "b"), (3, "a")], 4, "a and b"),
        ([(0, "a"), (4, "b")], 4, "a"),  # the steps of the best checkpoint, or of one before a damaged one
        ([(2, "b")], 4, "unknown and b"),  # begun before starts were recorded
        ([], 4, "unknown"),
        ([(0, None)], 4, "unknown"),
        ([], 0, None),
    ],
)
def test_results_name_the_code_that_made_the_steps(starts, steps, told):
    records = [{"step": step, "commit": commit} for step, commit in starts]
    assert evaluate.of_training("commit", records, steps) == told


def test_the_commit_is_that_of_this_code_and_of_no_repository_around_it(tmp_path, monkeypatch):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    for folder, commit in (("lib/dfn_jax", None), ("dfn_jax", head[:12])):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / folder / "provenance.py"))
        assert provenance.commit() == commit
