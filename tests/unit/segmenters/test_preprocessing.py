from dataclasses import replace

import numpy as np
import pytest
import torch

from cohort.case import Structure
from cohort.errors import DataError, GeometryError, ModelError
from cohort.slabs import Slab
from cohort.volume import Volume, read_grid, read_label_map, to_canonical, write_volume
from segmenters.config import SegmenterConfig
from segmenters.preprocessing import (
    IGNORED,
    median_spacing_mm,
    normalise,
    padding_value,
    prepare_training_case,
    trained_structures,
)

CT = SegmenterConfig(patch=(8, 8, 16), intensity="ct_hu", window_hu=(-100.0, 300.0))
MR = SegmenterConfig(patch=(8, 8, 16))


def prepare(case, trained, structures, config, spacing_mm=(3.0, 1.0, 0.5)):
    return prepare_training_case(case, trained, structures, spacing_mm, config, np.random.default_rng(0))


def test_ct_window_becomes_minus_one_to_one():
    image = np.array([[[-1024.0, -100.0, 0.0, 100.0, 300.0, 2000.0]]], dtype=np.float32)

    assert normalise(image, CT).ravel().tolist() == [-1.0, -1.0, -0.5, 0.0, 1.0, 1.0]
    assert padding_value(CT) == -1.0


def test_percentiles_clip_and_standardise_whatever_the_scale():
    image = np.random.default_rng(0).normal(0, 1, (8, 12, 16)).astype(np.float32)
    image[0, 0, 0] = 1e6

    scaled = normalise(image, MR)

    assert scaled.dtype == np.float32
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(scaled.std()) == pytest.approx(1.0, abs=1e-5)
    assert float(scaled.max()) < 4.0
    np.testing.assert_allclose(normalise(image * 7 + 100, MR), scaled, atol=1e-3)
    assert padding_value(MR) == 0.0


def test_constant_image_becomes_zeros():
    assert not normalise(np.full((2, 3, 4), 5.0, dtype=np.float32), MR).any()


def test_only_seen_structures_are_trained(write_case, structures):
    cases = [write_case("a", 0, ["spleen"]), write_case("b", 1, ["liver", "spleen"])]

    assert [s.name for s in trained_structures(cases, structures)] == ["liver", "spleen"]
    assert [s.name for s in trained_structures(cases[:1], structures)] == ["spleen"]


def test_nothing_to_learn_from_is_an_error(write_case, structures):
    with pytest.raises(ModelError, match="no training case"):
        trained_structures([], structures)
    with pytest.raises(ModelError, match="None of the 1 training cases annotates"):
        trained_structures([write_case("a", 0, [])], structures)
    with pytest.raises(ModelError, match=r"a annotates \['tail'\]"):
        trained_structures([write_case("a", 0, ["tail"])], structures)


def test_median_spacing_is_canonical(write_case):
    assert median_spacing_mm([write_case("a", 0)]) == (3.0, 1.0, 0.5)


def test_median_spacing_follows_turned_axes(write_case, tmp_path):
    case = write_case("a", 0)
    turned = np.array([[0, 0, 3.0, 0], [1.0, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 1.0]])
    write_volume(case.image, np.zeros((8, 12, 16), dtype=np.float32), turned)

    # x runs along world y (1 mm), y along z (0.5 mm), z along x (3 mm)
    assert median_spacing_mm([case]) == (0.5, 1.0, 3.0)


def test_unannotated_structure_is_background_or_unknown(write_case, structures):
    case = write_case("a", 0, ["spleen"])
    stored = read_label_map(case.label_map)

    prepared = prepare(case, structures[:2], structures, MR)

    expected = to_canonical(stored).array == 5
    assert prepared.known.tolist() == [True, False, True]
    assert torch.equal(prepared.channels == 2, torch.from_numpy(expected))
    assert torch.unique(prepared.channels).tolist() == [0, 2]
    assert list(prepared.places) == [2]
    voxels = prepared.places[2].long()
    assert len(voxels) == expected.sum()
    assert (prepared.channels[voxels[:, 0], voxels[:, 1], voxels[:, 2]] == 2).all()


def test_image_and_labels_are_turned_and_resampled_alike(write_case, structures):
    case = write_case("a", 0)

    prepared = prepare(case, structures[:2], structures, MR, (1.5, 1.0, 1.0))

    assert prepared.image.shape == prepared.channels.shape == (16, 12, 8)
    liver, spleen = (prepared.image[prepared.channels == channel].mean() for channel in (1, 2))
    assert liver > 0.8
    assert spleen < -0.8


def test_undeclared_label_and_other_grid_are_refused(write_case, structures, affine):
    case = write_case("a", 0)
    with pytest.raises(DataError, match="labels 5"):
        prepare(case, structures[:1], [Structure(name="liver", label=2)], MR)
    write_volume(case.label_map, np.zeros((8, 12, 15), dtype=np.uint8), affine)
    with pytest.raises(GeometryError, match=r"a_labels.nii.gz has shape"):
        prepare(case, structures[:2], structures, MR)


def test_weights_go_to_the_channels_of_their_structures(write_case, structures):
    case = replace(write_case("a", 0, ["liver", "spleen"]), pseudo=True, weights={"liver": 0.5})

    prepared = prepare(case, structures[:2], structures, MR)

    assert prepared.pseudo
    # background counts as the mean of what is annotated
    assert prepared.weight.tolist() == [0.75, 0.5, 1.0]
    assert prepare(write_case("b", 0), structures[:2], structures, MR).weight is None


def test_weights_of_one_are_none(write_case, structures):
    case = replace(write_case("a", 0, ["liver"]), weights={"liver": 1.0})

    assert prepare(case, structures[:2], structures, MR).weight is None


class TestSlabs:
    SLABS = (Slab(first=2, last=3), Slab(first=7, last=7))

    def test_other_slices_are_ignored_wherever_the_file_puts_them(self, write_case, structures):
        case = replace(write_case("a", 0), slabs=self.SLABS)

        found, whole = (prepare(c, structures[:2], structures, MR) for c in (case, replace(case, slabs=())))

        stored = np.zeros((8, 12, 16), dtype=np.uint8)
        stored[[2, 3, 7]] = 1
        inside = torch.from_numpy(
            to_canonical(Volume(array=stored, affine=read_grid(case.image).affine)).array > 0
        )
        assert torch.equal(found.channels != IGNORED, inside)
        assert torch.equal(found.channels[inside], whole.channels[inside])
        assert sorted(found.places) == [1, 2]
        for voxels in (*found.places.values(), found.annotated):
            at = voxels.long()
            assert bool(inside[at[:, 0], at[:, 1], at[:, 2]].all())
        assert whole.annotated is None

    def test_a_slab_beyond_the_volume_is_refused(self, write_case, structures):
        case = replace(write_case("a", 0), slabs=(Slab(first=6, last=9),))
        with pytest.raises(DataError, match="slices 6-9 reach beyond a volume of 8 slices"):
            prepare(case, structures[:2], structures, MR)

    def test_a_slab_that_is_lost_at_a_coarser_spacing_leaves_nothing_to_learn(self, write_case, structures):
        case = replace(write_case("a", 0), slabs=(Slab(first=0, last=0),))
        found = prepare(case, structures[:2], structures, MR, (24.0, 1.0, 0.5))
        assert bool((found.channels == IGNORED).all())
        assert len(found.annotated) == 0
        assert found.places == {}
