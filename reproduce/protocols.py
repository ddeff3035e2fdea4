"""What the tables are made of: networks, published figures, and protocols from days to minutes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from experiments import highway, moving_mnist, steerable, stereo


class Row(NamedTuple):
    """One network of a table.

    Attributes:
        name: as the table calls it.
        preset: of the experiment, the published recipe of this network.
        parameters: of the network in that recipe.
        published: its figures in print, in words; empty where there is none.
        exceptions: what it changes of protocols, by their flags, where it cannot be run as the other rows are.
    """

    name: str
    preset: str
    parameters: int
    published: str = ""
    exceptions: Mapping[str, dict[str, Any]] = {}


class Cited(NamedTuple):
    """A line of a table that no network here is run for.

    Attributes:
        name: as the table calls it.
        published: its figure in print.
        metric: of the other rows' `results.json`: of a trivial predictor, or a property of the data; may be empty.
    """

    name: str
    published: str
    metric: str = ""


class Protocol(NamedTuple):
    """How all rows of a table are run.

    Attributes:
        name: as the table's column calls it.
        changes: what it changes in every row's published recipe, by dotted names of the config.
        recipe: the same in words.
    """

    name: str
    changes: dict[str, Any]
    recipe: str


class Table(NamedTuple):
    """Networks, and the protocols under which they are compared.

    Attributes:
        rows: in the order of the table.
        metric: of `results.json` that the table shows.
        unit: of the metric, in words.
        protocols: by their flags, in the order of the table.
        cited: lines below the networks.
    """

    rows: tuple[Row, ...]
    metric: str
    unit: str
    protocols: dict[str, Protocol]
    cited: tuple[Cited, ...] = ()


FULL = Protocol("full recipe", {}, "each row trained with its published recipe")
MEDIUM = Protocol(
    "medium protocol",
    {"train.steps": 10_000, "train.batch_size": 4, "optim.halve_every": 2000},
    "the published recipe with half the steps, a quarter of the batch, learning rate halved twice as often",
)


def _short(changes: dict[str, Any], recipe: str) -> Protocol:
    return Protocol("short protocol", changes, recipe)


TABLES = {
    "moving_mnist": Table(
        (
            Row(
                "FC-LSTM",
                "fc_lstm",
                142_667_776,
                "341.2 (Table 1), 483.2 (Shi et al.)",
                {
                    "medium": {"optim.name": "adam"},
                    "short": {
                        "train.steps": 400,
                        "train.checkpoint_every": 100,
                        "optim.name": "adam",
                        "optim.learning_rate": 1e-3,
                        "optim.halve_every": 100,
                    },
                },
            ),
            Row("Conv-LSTM", "conv_lstm", 7_585_296, "367.1", {"short": {"optim.learning_rate": 3e-3}}),
            Row("without the filter", "twin", 637_443, "434.8 (authors' code)"),
            Row("CDNA", "cdna", 2_288_021),
            Row("DNA", "dna", 637_361),
            Row("DFN", "paper", 637_361, "285.2; 282.3 (authors' code)"),
        ),
        "bce_nats_per_frame",
        "cross-entropy, nats per frame",
        {
            "full": FULL,
            "medium": Protocol(
                "medium protocol",
                {
                    "train.steps": 3000,
                    "train.batch_size": 4,
                    "train.checkpoint_every": 100,
                    "train.double_horizon_every": 400,
                    "optim.name": "muon",
                    "optim.learning_rate": 1e-3,
                    "optim.halve_every": 750,
                    "optim.clip_norm": 1.0,
                    "eval.examples": 1000,
                },
                "the published task and networks; 3,000 steps of 4 sequences, where the recipe has 20,000 of 16; one "
                "predicted frame at first, and twice as many after every 400 steps; Muon (for the FC-LSTM Adam), 1e-3 "
                "halved every 750, gradients clipped to norm 1; a tenth of the test set",
            ),
            "short": _short(
                moving_mnist.PRESETS["quick"],
                "the preset `quick`: one digit of 14 pixels on 32x32, 4 + 4 frames, 800 steps of 4 sequences, Muon, "
                "1e-3 (for the Conv-LSTM 3e-3); but the FC-LSTM, for whose kernels Muon would take a day, has 400 "
                "steps of Adam, 1e-3 halved every 100",
            ),
        },
        (
            Cited("Video Pixel Network (Kalchbrenner et al., 2016), baseline (not built here)", "110.1"),
            Cited("Video Pixel Network (not built here)", "87.6"),
            Cited("entropy of the grey targets (lower bound for any predictor)", "about 86.3", "target_entropy_nats"),
            Cited(
                "last frame, with the blur that is best for this test set",
                "–",
                "baseline_blurred_frame_bce_nats_per_frame",
            ),
            Cited("mean frame", "–", "baseline_mean_frame_bce_nats_per_frame"),
        ),
    ),
    "highway": Table(
        (
            Row("without the filter", "twin", 368_245, "15.08 (authors' code)"),
            Row("DFN", "paper", 368_122, "13.54; 13.39 (authors' code)"),
        ),
        "mse_per_frame",
        "squared error, summed over the frame",
        {
            "full": FULL,
            "medium": MEDIUM,
            "short": _short(
                highway.PRESETS["quick"], "the preset `quick`: 32x32, 1,500 steps of 4 sequences, Muon, 3e-3"
            ),
        },
        (
            Cited(
                "last frame, with the blur that is best for this test set", "–", "baseline_blurred_frame_mse_per_frame"
            ),
            Cited("last frame", "–", "baseline_last_frame_mse_per_frame"),
        ),
    ),
    "stereo": Table(
        (
            Row("without the filter", "twin", 464_509, "1.70 (authors' code)"),
            Row("spatial transformer", "spatial_transformer", 532_838),
            Row("deep stereo", "deep_stereo", 576_902),
            Row("DFN", "paper", 464_494, "0.52; 1.35 (authors' code)"),
        ),
        "mse_per_image",
        "squared error, summed over the image",
        {
            "full": FULL,
            "medium": MEDIUM,
            "short": _short(stereo.PRESETS["quick"], "the preset `quick`: 700 steps of 4 pairs, Muon, 3e-3"),
        },
        (Cited("best shift per row", "–", "baseline_row_shift_mse_per_image"),),
    ),
    "steerable": Table(
        (Row("DFN", "paper", 18_897),),
        "filter_relative_error",
        "relative error of the filters",
        {"full": FULL, "short": _short(steerable.PRESETS["quick"], "the preset `quick`")},
    ),
}
