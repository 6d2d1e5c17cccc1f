from dataclasses import replace

import numpy as np
import pytest
import torch

from sentinel.batches import Batches
from sentinel.config import SentinelConfig
from sentinel.pairs import Pairs
from sentinel.text import embed_names

CONFIG = SentinelConfig(batch_size=4, image_size=32, volume_weight=0.0, mask_dropout=0.0)
COUNT = 12


def pairs_of(structure: int = 0) -> Pairs:
    slices = np.zeros((COUNT, 2, 32, 32), dtype=np.uint8)
    slices[:, 0] = 100
    slices[:, 1, 8:24, 2:10] = 255
    return Pairs(
        slices=slices,
        references=slices[:, 1],
        slice_dsc=np.linspace(0.0, 1.0, COUNT, dtype=np.float32),
        volume_dsc=np.zeros(COUNT, dtype=np.float32),
        sizes=np.full(COUNT, 128, dtype=np.int64),
        structure=np.full(COUNT, structure, dtype=np.int64),
        mask_index=np.arange(COUNT),
        natural=np.ones(COUNT, dtype=bool),
        patient_ids=("p",) * COUNT,
    )


def batches_of(structure: int = 0, config: SentinelConfig = CONFIG, seed: int = 1) -> Batches:
    names = ["liver", "kidney_left"]
    return Batches(pairs_of(structure), embed_names(names), names, config, seed, torch.device("cpu"))


def test_every_pair_comes_once_before_any_comes_again() -> None:
    batches = batches_of()
    for _ in range(3):
        seen = torch.cat([batches.draw().target for _ in range(3)])
        np.testing.assert_allclose(np.sort(seen.numpy()), np.linspace(0.0, 1.0, COUNT), rtol=1e-6)


def test_shapes_and_values() -> None:
    batch = batches_of(structure=1).draw()
    slices = batch.slices
    assert slices.shape == (4, 2, 32, 32)
    assert batch.text.shape == (4, 384)
    assert batch.target.dtype == torch.float32
    assert sorted(batch.partner.tolist()) == [0, 1, 2, 3]
    assert (batch.partner != torch.arange(4)).all()
    np.testing.assert_array_equal(batch.text[0].numpy(), embed_names(["kidney_left"])[0])
    assert -2.0 <= slices[:, 0].min() <= slices[:, 0].max() <= 2.0
    assert slices[:, 1].amin().item() == -1.0
    assert slices[:, 1].amax().item() == pytest.approx(1.0)


def test_seed_decides() -> None:
    first, second, other = (batches_of(seed=seed).draw() for seed in (1, 1, 2))
    torch.testing.assert_close(first.slices, second.slices, rtol=0.0, atol=0.0)
    assert not torch.equal(first.slices, other.slices)


def test_the_reference_moves_with_the_mask() -> None:
    batch = batches_of().draw()
    torch.testing.assert_close(batch.references / 127.5 - 1.0, batch.slices[:, 1], atol=1e-4, rtol=0.0)


def on_the_left(batches: Batches) -> list[bool]:
    masks = torch.cat([batches.draw().slices[:, 1] for _ in range(9)])
    return (masks[..., :16].mean(dim=(1, 2)) > masks[..., 16:].mean(dim=(1, 2))).tolist()


def test_only_structures_without_a_side_are_mirrored() -> None:
    assert 0.2 < np.mean(on_the_left(batches_of(structure=0))) < 0.8
    assert all(on_the_left(batches_of(structure=1)))


def test_nothing_is_mirrored_where_the_axes_are_not_known() -> None:
    assert all(on_the_left(batches_of(config=replace(CONFIG, orientation="as_stored"))))


def test_hidden_masks_are_empty_and_keep_their_reference() -> None:
    batches = batches_of(config=replace(CONFIG, mask_dropout=0.5))
    drawn = [batches.draw() for _ in range(12)]
    hidden = torch.cat([batch.hidden for batch in drawn])
    largest = torch.cat([batch.slices[:, 1].amax(dim=(1, 2)) for batch in drawn])
    assert 0.2 < hidden.float().mean() < 0.8
    assert (largest[hidden] == -1.0).all()
    assert (largest[~hidden] > 0.9).all()
    assert all(batch.references.amax(dim=(1, 2)).min() > 250.0 for batch in drawn)


def test_no_mask_is_hidden_without_a_dense_head() -> None:
    config = replace(CONFIG, mask_dropout=0.9, dense_weight=0.0, aggregation="mean")
    assert not batches_of(config=config).draw().hidden.any()
