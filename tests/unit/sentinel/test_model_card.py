"""A card that says what was measured and where it ends, and whose code runs."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from cohort.volume import Volume
from sentinel.calibration import Calibration, StructureCalibration
from sentinel.config import SentinelConfig
from sentinel.evaluation import Evaluation, Figures, SliceFigures
from sentinel.model_card import CardTest, model_card
from sentinel.scoring import MaskScore, Sentinel
from sentinel.text import embed_names

NAMES = ("liver", "spleen", "stomach")
FILE = "tiny.safetensors"
ABOUT = {"data set": "Tiny", "modality": "MR", "training patients": "17", "code version": "abc123"}
OVERALL = Figures(
    masks=48,
    patients=12,
    without_value=0,
    pearson=0.8126,
    pearson_low=0.7014,
    pearson_high=0.8918,
    spearman=0.7777,
    spearman_within=0.4321,
    mae=0.0654,
    mae_low=0.0512,
    mae_high=0.0788,
    coverage=0.8958,
    coverage_low=0.8112,
    coverage_high=0.9521,
    auc=0.9345,
)


def learned(quantile: float | None, patients: int) -> StructureCalibration:
    return StructureCalibration(
        knots=((0.0, 0.0), (1.0, 1.0)), quantile=quantile, patients=patients, masks=4 * patients
    )


@pytest.fixture
def sentinel() -> Sentinel:
    return Sentinel(
        config=SentinelConfig(image_size=32, max_slices=3, precision="float32", device="cpu"),
        structures=NAMES,
        embeddings=embed_names(NAMES),
        training_sha256="f00d",
        metrics={"validation_pearson": 0.8765},
        calibration=Calibration(
            level=0.8, structures={"liver": learned(0.4, 20), "spleen": learned(None, 3)}
        ),
    )


def card(sentinel: Sentinel, *tests: CardTest, licence: str = "CC0", **about: str) -> str:
    return model_card(
        sentinel,
        name="Sentinel tiny",
        file=FILE,
        about={**ABOUT, **about},
        tests=tests,
        licence=licence,
        bad_below=0.65,
    )


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]


def test_structures_say_which_bounds_they_have(sentinel: Sentinel) -> None:
    found = {row[0]: row[1] for row in rows(card(sentinel)) if row[0] in NAMES}
    assert found == {
        "liver": "80%, from 20 patients, 80 masks",
        "spleen": "none: 3 patients calibrate it, bounds take 4",
        "stomach": "none: not calibrated for this structure",
    }


def test_what_was_measured_appears(sentinel: Sentinel) -> None:
    rival = Figures(masks=40, patients=12, without_value=8, mae=0.1234)
    slices = SliceFigures(slices=99, pearson=0.611, spearman=0.622, mae=0.133)
    own = Evaluation(per_mask={"all": OVERALL, "liver": rival}, per_slice={"all": slices})
    test = CardTest(
        heading="Masks by unet",
        evaluations={"sentinel": own, "entropy": Evaluation(per_mask={"all": rival})},
    )
    text = card(sentinel, test)
    assert "### Masks by unet" in text
    table = rows(text)
    measured = [
        "48",
        "0.813 [0.701, 0.892]",
        "0.778",
        "0.432",
        "0.065 [0.051, 0.079]",
        "0.896 [0.811, 0.952]",
    ]
    assert ["sentinel", *measured, "0.934"] in table
    for name in ("entropy", "liver"):
        assert [name, "40", "- [-, -]", "-", "-", "0.123 [-, -]", "- [-, -]", "-"] in table
    assert "Single slices (99), before calibration: Pearson 0.611, Spearman 0.622, MAE 0.133." in text
    assert "below DSC 0.65" in text


def test_an_estimator_that_was_not_calibrated_is_not_said_to_have_no_masks(sentinel: Sentinel) -> None:
    none = Evaluation(per_mask={"all": Figures(masks=0, patients=0, without_value=10)})
    own = Evaluation(per_mask={"all": OVERALL})
    table = rows(card(sentinel, CardTest(heading="x", evaluations={"sentinel": own, "entropy": none})))
    (found,) = (row for row in table if row[0] == "entropy")
    assert found[1] == "none of 10 has a calibrated value"


def test_an_estimator_without_slices_has_no_line_of_them(sentinel: Sentinel) -> None:
    text = card(
        sentinel, CardTest(heading="x", evaluations={"sentinel": Evaluation(per_mask={"all": OVERALL})})
    )
    assert "Single slices" not in text


def test_where_it_came_from(sentinel: Sentinel) -> None:
    text = card(sentinel)
    assert "Learned from Tiny (MR, 17 patients)" in text
    made = dict(row for row in rows(text) if len(row) == 2)
    assert (made["code version"], made["training set sha256"]) == ("abc123", "f00d")
    assert (made["sentinel: max_slices"], made["sentinel: validation_pearson"]) == ("3", "0.876")
    assert made["licence of the data"] == "CC0"


def test_what_was_not_said_is_said_to_be_missing(sentinel: Sentinel) -> None:
    text = card(sentinel, licence="", modality="")
    assert "(modality not said, 17 patients)" in text
    assert "| licence of the data | not said |" in text


def test_cells_cannot_break_a_table(sentinel: Sentinel) -> None:
    assert ["command", "a / b"] in rows(card(sentinel, command="a | b"))


@pytest.mark.parametrize(("orientation", "told"), [("canonical", True), ("as_stored", False)])
def test_limits_name_the_affine_where_it_matters(sentinel: Sentinel, orientation: str, told: bool) -> None:
    sentinel.config = SentinelConfig(orientation=orientation)
    assert ("their affine has to be right" in card(sentinel)) is told


def test_its_code_loads_the_file_and_scores(
    sentinel: Sentinel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentinel.save(tmp_path / FILE)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", card(sentinel), flags=re.DOTALL)
    array = np.random.default_rng(0).normal(size=(8, 12, 16)).astype(np.float32)
    mask = np.zeros(array.shape, dtype=bool)
    mask[2:5, 3:9, 4:12] = True
    variables: dict[str, object] = {"volume": array, "masks": {"liver": mask}, "spacing_mm": (3.0, 1.0, 0.5)}
    exec(code, variables)
    expected = sentinel.score(Volume(array=array, affine=np.diag([0.5, 1.0, 3.0, 1.0])), {"liver": mask})
    assert variables["scores"] == expected
    (found,) = expected
    assert isinstance(found, MaskScore)
    assert not math.isnan(found.lower)
