import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cohort.errors import ConfigError, GeometryError, ModelError
from cohort.volume import Volume
from sentinel.config import SentinelConfig
from sentinel.folding import folded
from sentinel.scoring import Sentinel
from sentinel.text import embed_names

CONFIG = SentinelConfig(image_size=32, margin=3.0, precision="float32", device="cpu")
AFFINE = np.array([[-0.5, 0, 0, 7.0], [0, 1.0, 0, -3.0], [0, 0, 3.0, 11.0], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def sentinel() -> Sentinel:
    torch.manual_seed(0)
    names = ("liver", "spleen")
    return Sentinel(
        config=CONFIG,
        structures=names,
        embeddings=embed_names(names),
        training_sha256="abc",
        history=[{"step": 1.0, "loss": 0.5}],
        metrics={"validation_pearson": 0.9},
    )


def scene(seed: int = 0) -> tuple[Volume, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    masks = {name: np.zeros((8, 12, 16), dtype=bool) for name in ("liver", "spleen")}
    masks["liver"][2:6, 3:9, 2:7] = True
    masks["spleen"][1:5, 2:6, 9:14] = True
    return Volume(array=rng.normal(size=(8, 12, 16)).astype(np.float32), affine=AFFINE), masks


def test_score_is_the_mean_over_slices(sentinel: Sentinel) -> None:
    sentinel = Sentinel(
        config=replace(CONFIG, aggregation="mean"),
        structures=sentinel.structures,
        embeddings=sentinel.embeddings,
    )
    liver, spleen = sentinel.score(*scene())
    assert (liver.structure, spleen.structure) == ("liver", "spleen")
    assert liver.slice_indices == (2, 3, 4, 5)
    assert spleen.slice_indices == (1, 2, 3, 4)
    assert liver.predicted_dsc == pytest.approx(np.mean(liver.slice_scores))
    assert len(set(liver.slice_scores)) == 4


def test_name_matters(sentinel: Sentinel) -> None:
    volume, masks = scene()
    as_liver, as_spleen = sentinel.score(volume, {"liver": masks["liver"], "spleen": masks["liver"]})
    assert as_liver.predicted_dsc != as_spleen.predicted_dsc


def test_empty_mask_has_no_score(sentinel: Sentinel) -> None:
    volume, masks = scene()
    empty, full = sentinel.score(volume, {"spleen": np.zeros_like(masks["spleen"]), "liver": masks["liver"]})
    assert math.isnan(empty.predicted_dsc)
    assert (empty.reason, empty.slice_indices, empty.slice_scores) == ("empty mask", (), ())
    assert full.reason == "not calibrated for this structure"
    assert full.predicted_dsc == pytest.approx(sentinel.score(volume, masks)[0].predicted_dsc, abs=1e-5)


def test_many_cases_score_as_one_by_one(sentinel: Sentinel) -> None:
    scenes = [scene(seed) for seed in range(3)]
    for together, (volume, masks) in zip(sentinel.score_many(scenes), scenes, strict=True):
        for one, other in zip(together, sentinel.score(volume, masks), strict=True):
            np.testing.assert_allclose(one.slice_scores, other.slice_scores, atol=1e-5)


def test_no_cases(sentinel: Sentinel) -> None:
    assert sentinel.score_many([]) == []


def test_how_a_scan_is_stored_does_not_matter(sentinel: Sentinel) -> None:
    volume, masks = scene()
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = 7.0
    turned = Volume(array=np.ascontiguousarray(volume.array[::-1]), affine=AFFINE @ flip)
    scores = sentinel.score(turned, {name: mask[::-1] for name, mask in masks.items()})
    for one, other in zip(scores, sentinel.score(volume, masks), strict=True):
        np.testing.assert_allclose(one.slice_scores, other.slice_scores, atol=1e-5)


def test_saved_and_loaded(sentinel: Sentinel, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "sentinel.safetensors"
    sentinel.save(path)
    loaded = Sentinel.load(path)
    assert (loaded.config, loaded.structures) == (sentinel.config, sentinel.structures)
    assert (loaded.training_sha256, dict(loaded.metrics)) == ("abc", {"validation_pearson": 0.9})
    assert [dict(step) for step in loaded.history] == [{"step": 1.0, "loss": 0.5}]
    assert loaded.score(*scene()) == sentinel.score(*scene())
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_unknown_structure(sentinel: Sentinel) -> None:
    volume, masks = scene()
    with pytest.raises(ModelError, match="not trained for structure 'brain'; it knows liver, spleen"):
        sentinel.score(volume, {"brain": masks["liver"]})


def test_mask_of_another_shape(sentinel: Sentinel) -> None:
    volume, masks = scene()
    with pytest.raises(
        GeometryError, match=r"'liver' has shape \(8, 12, 15\), but its image .* \(8, 12, 16\)"
    ):
        sentinel.score(volume, {"liver": masks["liver"][..., :-1]})


def test_embeddings_must_fit() -> None:
    with pytest.raises(ModelError, match=r"shape \(1, 384\), expected \(2, 384\)"):
        Sentinel(config=CONFIG, structures=("liver", "spleen"), embeddings=embed_names(["liver"]))


def test_broken_files(sentinel: Sentinel, tmp_path: Path) -> None:
    path = tmp_path / "sentinel.safetensors"
    with pytest.raises(ModelError, match="do not exist"):
        Sentinel.load(path)
    sentinel.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot be read as a sentinel"):
        Sentinel.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match=r"a file that Sentinel.save wrote"):
        Sentinel.load(path)


def test_the_dense_head_gives_the_dsc_of_the_whole_mask_with_what_it_draws(sentinel: Sentinel) -> None:
    volume, masks = scene()
    (found,) = sentinel.score(volume, {"liver": masks["liver"]})
    judged: list[np.ndarray] = []
    with pytest.MonkeyPatch.context() as patch:
        whole = Sentinel.judge
        patch.setattr(Sentinel, "judge", lambda *given: judged.append(whole(*given)) or judged[-1])
        sentinel.score(volume, {"liver": masks["liver"]})
    _, overlap, drawn = judged[0].T
    sizes = masks["liver"].sum(axis=(1, 2))[2:6]
    assert found.raw == pytest.approx(2.0 * (sizes @ overlap) / (sizes.sum() + sizes @ drawn), abs=1e-5)
    assert 0.0 < found.raw < 1.0


def test_a_sentinel_as_published_has_no_dense_head(sentinel: Sentinel, tmp_path: Path) -> None:
    published = Sentinel(
        config=replace(CONFIG, aggregation="area", dense_weight=0.0),
        structures=sentinel.structures,
        embeddings=sentinel.embeddings,
        network=sentinel.network,
    )
    published.save(tmp_path / "sentinel.safetensors")
    loaded = Sentinel.load(tmp_path / "sentinel.safetensors")
    assert published.dense is None
    assert loaded.dense is None
    assert loaded.score(*scene()) == published.score(*scene())
    with pytest.raises(ConfigError, match="aggregation is 'dense', but dense_weight is 0"):
        replace(CONFIG, dense_weight=0.0)


def test_broken_weights_are_an_error_and_not_a_missing_calibration(sentinel: Sentinel) -> None:
    broken = Sentinel(
        config=replace(CONFIG, dense_weight=0.0, aggregation="mean"),
        structures=sentinel.structures,
        embeddings=sentinel.embeddings,
    )
    with torch.no_grad():
        broken.network.fc2.bias.fill_(math.nan)
    with pytest.raises(ModelError, match="no number for a slice of 'liver': its weights are broken"):
        broken.score(*scene())


def test_bfloat16_folds_once_and_again_when_weights_change(sentinel, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import sentinel.scoring as scoring

    count = 0

    def counted(network):  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        return folded(network)

    monkeypatch.setattr(scoring, "folded", counted)
    torch.manual_seed(1)
    names = ("liver", "spleen")
    quick = Sentinel(
        config=replace(CONFIG, precision="bfloat16"), structures=names, embeddings=embed_names(names)
    )
    volume, masks = scene()
    first = quick.score(volume, masks)
    assert [score.raw for score in quick.score(volume, masks)] == [score.raw for score in first]
    assert count == 2  # network and dense head
    exact = Sentinel(
        config=CONFIG, structures=names, embeddings=quick.embeddings, network=quick.network, dense=quick.dense
    )
    assert first[0].raw == pytest.approx(exact.score(volume, masks)[0].raw, abs=0.05)
    with torch.no_grad():
        quick.network.bn1.bias.add_(3.0)
    assert quick.score(volume, masks)[0].slice_scores != first[0].slice_scores
    assert count == 4
