"""Bundles whose network is a threshold, so that what it says is known, and a U-Net beside MONAI's own."""

import json
import logging
import shutil
from pathlib import Path

import monai.bundle
import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, UNet
from monai.transforms import Invertd

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, ModelError
from cohort.metrics import dsc_per_structure
from cohort.volume import check_same_grid, read_image, read_label_map, write_volume
from segmenters.bundle import BundleSegmenter
from segmenters.bundle_config import BundleConfig

STRUCTURES = (
    Structure(name="liver", label=2),
    Structure(name="spleen", label=5),
    Structure(name="stomach", label=9),
)
NETWORK = """
import torch
from torch import nn


class Threshold(nn.Module):
    def __init__(self, background, dropout):
        super().__init__()
        self.background, self.dropout = background, nn.Dropout3d(dropout)
        self.slope = nn.Parameter(torch.ones(1))

    def forward(self, x):
        shown = [torch.zeros_like(x)] if self.background else []
        return self.slope * self.dropout(torch.cat([*shown, -x - 0.3, x - 0.3], dim=1))
"""


def softmax_or_sigmoid(kind):
    return {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", kind: True}]}


@pytest.fixture
def threshold(write_bundle, tmp_path):
    def write(name="threshold", *, background=True, dropout=0.0, **changes) -> Path:
        network = {"_target_": "scripts.network.Threshold", "background": background, "dropout": dropout}
        kind = "softmax" if background else "sigmoid"
        root = write_bundle(
            tmp_path / name,
            {"network_def": network, "postprocessing": softmax_or_sigmoid(kind), **changes},
            channels=("background", "spleen", "liver") if background else ("spleen", "liver"),
            weights={"slope": torch.tensor([20.0])},
        )
        (root / "scripts").mkdir()
        (root / "scripts" / "__init__.py").touch()
        (root / "scripts" / "network.py").write_text(NETWORK)
        return root

    return write


@pytest.fixture
def segmenter(tmp_path):
    def make(path, device="auto", **settings) -> BundleSegmenter:
        config = BundleConfig(path=str(path), trust=True, **{"precision": "float32", **settings})
        return BundleSegmenter(config, tmp_path / "work", device)

    return make


@pytest.fixture
def case(write_case, as_case):
    return as_case(write_case("one", 1))


def predicted(segmenter, view, tmp_path, structures=STRUCTURES, **options):
    (checkpoint,) = segmenter.fit([], structures, tmp_path / "weights", seed=0)
    (prediction,) = segmenter.predict([view], checkpoint, structures, tmp_path / "out", **options)
    return prediction


def spacingd(*pixdim):
    return {"_target_": "Spacingd", "keys": "@image_key", "pixdim": list(pixdim), "mode": "bilinear"}


def preprocessing(*pixdim, after=()):
    image = {"keys": "@image_key"}
    return {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", **image, "ensure_channel_first": True},
            {"_target_": "Orientationd", **image, "axcodes": "SPR", "labels": None},
            spacingd(*pixdim),
            {
                "_target_": "ScaleIntensityRanged",
                **image,
                "a_min": -150,
                "a_max": 150,
                "b_min": -1,
                "b_max": 1,
            },
            *after,
        ],
    }


class TestAsItIs:
    def test_predicts_what_its_network_says_on_the_images_grid(self, threshold, segmenter, case, tmp_path):
        prediction = predicted(segmenter(threshold()), case.view(), tmp_path)

        found, reference = read_label_map(prediction.mask), read_label_map(case.reference)
        check_same_grid(read_image(case.image), found, case.image, prediction.mask)
        np.testing.assert_array_equal(found.array, reference.array)
        assert prediction.voxels["stomach"] == 0

    @pytest.mark.parametrize("pixdim", [(2.0, 1.5, 0.7), (5.0, 1.0, 0.5), (1.0, 0.6, 0.4)])
    def test_another_spacing_and_orientation_come_back(self, threshold, segmenter, case, tmp_path, pixdim):
        bundle = threshold(preprocessing=preprocessing(*pixdim))
        prediction = predicted(segmenter(bundle), case.view(), tmp_path)

        reference = read_label_map(case.reference).array
        dsc = dsc_per_structure(read_label_map(prediction.mask).array, reference, STRUCTURES[:2])
        assert min(dsc.values()) > 0.8

    def test_a_cropped_image_comes_back(self, threshold, segmenter, case, tmp_path):
        crop = {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [6, 8, 12]}
        bundle = threshold(preprocessing=preprocessing(3.0, 1.0, 0.5, after=[crop]))
        prediction = predicted(segmenter(bundle), case.view(), tmp_path)

        found, reference = read_label_map(prediction.mask).array, read_label_map(case.reference).array
        inside = (slice(1, 7), slice(2, 10), slice(2, 14))
        np.testing.assert_array_equal(found[inside], reference[inside])
        assert (found > 0).sum() == (reference[inside] > 0).sum()

    def test_says_what_monais_own_workflow_says(self, write_bundle, segmenter, case, tmp_path):
        bundle = write_bundle(tmp_path / "unet", {"preprocessing": preprocessing(3.0, 1.0, 0.5)})
        channels = {"liver": 1, "spleen": 2, "stomach": 3}
        prediction = predicted(segmenter(bundle, "cpu", channels=channels), case.view(), tmp_path)

        parser = monai.bundle.ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        prepare = parser.get_parsed_content("preprocessing")
        data = prepare({"image": case.image})
        with torch.inference_mode():
            logits = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
        data["pred"] = torch.softmax(logits, dim=0)
        back = Invertd("pred", prepare, orig_keys="image", nearest_interp=False, device="cpu")(data)["pred"]
        expected = np.array([0, 2, 5, 9])[back.argmax(dim=0).numpy()].T

        assert len(np.unique(expected)) > 2
        np.testing.assert_array_equal(read_label_map(prediction.mask).array, expected)

    def test_a_structure_that_no_channel_means_is_told(self, threshold, segmenter, case, tmp_path, caplog):
        with caplog.at_level(logging.WARNING):
            predicted(segmenter(threshold()), case.view(), tmp_path)

        assert [record.getMessage() for record in caplog.records] == [
            f"No channel of the bundle {tmp_path / 'threshold'} means 'stomach': it will have no voxels"
        ]

    def test_channels_are_put_together(self, threshold, segmenter, case, tmp_path):
        prediction = predicted(
            segmenter(threshold(), channels={"liver": (1, 2), "spleen": ()}), case.view(), tmp_path
        )

        found, reference = read_label_map(prediction.mask).array, read_label_map(case.reference).array
        np.testing.assert_array_equal(found == 2, reference > 0)

    def test_channels_that_stand_alone(self, threshold, segmenter, case, tmp_path):
        prediction = predicted(segmenter(threshold(background=False)), case.view(), tmp_path)

        found, reference = read_label_map(prediction.mask).array, read_label_map(case.reference).array
        np.testing.assert_array_equal(found, reference)

    def test_a_zip_file_says_the_same(self, threshold, segmenter, case, tmp_path):
        folder = threshold()
        archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, folder.name)

        plain = predicted(segmenter(folder), case.view(), tmp_path / "a")
        packed = predicted(segmenter(archive), case.view(), tmp_path / "b")

        assert plain.checkpoint_sha256 == packed.checkpoint_sha256
        assert plain.mask.read_bytes() == packed.mask.read_bytes()

    def test_a_volume_smaller_than_the_window(self, threshold, segmenter, affine, tmp_path):
        image = np.full((2, 3, 5), -100.0, dtype=np.float32)
        image[1] = 100.0
        write_volume(tmp_path / "small.nii.gz", image, affine)
        view = CaseView(case_id="small", patient_id="small", image=tmp_path / "small.nii.gz")

        prediction = predicted(segmenter(threshold()), view, tmp_path)

        found = read_label_map(prediction.mask).array
        np.testing.assert_array_equal(found, np.where(image > 0, 2, 5))

    def test_learns_nothing_whatever_is_asked(self, threshold, segmenter, tmp_path):
        checkpoints = segmenter(threshold()).fit(
            [], STRUCTURES, tmp_path / "w", seed=5, steps=40, checkpoint_steps=[10, 20]
        )

        (checkpoint,) = checkpoints
        assert (checkpoint.step, checkpoint.structures) == (0, ("liver", "spleen"))


class TestUncertainty:
    def test_is_of_the_structures_that_the_network_knows(self, threshold, segmenter, case, tmp_path):
        bundle = segmenter(threshold(dropout=0.5), dropout=True)
        kinds = ("entropy", "inconsistency", "mc_dropout", "predictive_entropy", "bald")
        prediction = predicted(bundle, case.view(), tmp_path, uncertainty=kinds)

        assert set(kinds) == bundle.config.measures
        for kind in kinds:
            values = prediction.uncertainty[kind]
            assert 0.0 <= values["liver"] <= 1.0
            assert np.isnan(values["stomach"])
        assert prediction.uncertainty["mc_dropout"]["liver"] > 0.05
        assert prediction.uncertainty["entropy"]["liver"] < 0.1

    def test_mc_dropout_takes_a_network_with_dropout(self, threshold, segmenter, case, tmp_path):
        without = segmenter(threshold())
        (checkpoint,) = without.fit([], STRUCTURES, tmp_path / "w", seed=0)
        message = r"bundle .* has no dropout, so that every pass would be the same; set dropout to false"

        with pytest.raises(ConfigError, match=message):
            without.predict([case.view()], checkpoint, STRUCTURES, tmp_path / "p", uncertainty=["mc_dropout"])
        with pytest.raises(ConfigError, match=message):
            segmenter(threshold("again"), dropout=True).fit([], STRUCTURES, tmp_path / "w", seed=0)


class TestFineTuning:
    @pytest.fixture
    def tuned(self, write_bundle, segmenter, tmp_path):
        def make(name="tuned", **settings):
            if not (tmp_path / name).exists():
                write_bundle(tmp_path / name)
            settings = {"steps": 1, "batch_size": 1, "patch": (4, 8, 8), **settings}
            return segmenter(tmp_path / name, **settings)

        return make

    def test_the_same_seed_gives_the_same_weights(self, tuned, write_case, tmp_path):
        cases = [write_case("a", 3), write_case("b", 4, annotated=("stomach",))]
        first, again, other = (
            tuned(device="cpu").fit(cases, STRUCTURES, tmp_path / f"w{n}", seed=seed)[0]
            for n, seed in enumerate((1, 1, 2))
        )

        assert first.sha256 == again.sha256 != other.sha256
        assert first.structures == ("liver", "spleen", "stomach")

    def test_the_window_is_the_patch_where_none_is_given(self, tuned, write_case, tmp_path):
        (checkpoint,) = tuned(patch=None).fit(
            [write_case("a", 3)], STRUCTURES, tmp_path / "w", seed=1, steps=1
        )

        assert checkpoint.step == 1

    def test_no_window_and_no_patch(self, threshold, segmenter, write_case, tmp_path):
        bundle = threshold(inferer={"_target_": "SimpleInferer"})
        meta = json.loads((bundle / "configs" / "metadata.json").read_text())
        meta["network_data_format"]["inputs"]["image"]["spatial_shape"] = ["*", "16*n", "*"]
        (bundle / "configs" / "metadata.json").write_text(json.dumps(meta))
        cases = [write_case("a", 3, annotated=("liver", "spleen"))]

        with pytest.raises(
            ModelError, match=r"does not say how large a training patch is \(its window is None\)"
        ):
            segmenter(bundle, steps=1, channels={"liver": 1, "spleen": 2}).fit(
                cases, (STRUCTURES[0], STRUCTURES[1]), tmp_path / "w", seed=0
            )

    def test_several_outputs_of_deep_supervision_are_one(self, write_bundle, segmenter, write_case, tmp_path):
        network = {
            "_target_": "DynUNet",
            "spatial_dims": 3,
            "in_channels": 1,
            "out_channels": 4,
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 4, 4],
            "deep_supervision": True,
            "deep_supr_num": 1,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            weights = DynUNet(**{k: v for k, v in network.items() if k != "_target_"}).state_dict()
        bundle = write_bundle(tmp_path / "dynunet", {"network_def": network}, weights=weights)

        (checkpoint,) = segmenter(bundle, steps=1, batch_size=1, patch=(8, 8, 8)).fit(
            [write_case("a", 3)], STRUCTURES, tmp_path / "w", seed=0
        )

        assert checkpoint.structures == ("liver", "spleen")

    def test_no_training_case(self, tuned, tmp_path):
        with pytest.raises(ModelError, match=r"no training case"):
            tuned().fit([], STRUCTURES, tmp_path / "w", seed=0)

    def test_a_step_outside_of_the_training(self, tuned, write_case, tmp_path):
        with pytest.raises(ConfigError, match=r"checkpoint_steps has \[3\], expected steps from 1 to 1"):
            tuned().fit([write_case("a", 3)], STRUCTURES, tmp_path / "w", seed=0, checkpoint_steps=[3])


class TestBadBundle:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"preprocessing": None}, r"inference.json has no preprocessing"),
            ({"inferer": None}, r"inference.json has no inferer"),
            (
                {"preprocessing": spacingd(1.0, 1.0, -1.0) | {"_target_": "NoSuch"}},
                r"preprocessing of .* fails \(ModuleNotFoundError: .*NoSuch",
            ),
            (
                {"preprocessing": preprocessing(1.0, after=[{"_target_": "FlipD"}])},
                r"preprocessing of .* fails",
            ),
            ({"network_def": {"_target_": "torch.device", "type": "cpu"}}, r"is no network, but device"),
            (
                {
                    "preprocessing": preprocessing(
                        3.0, 1.0, 0.5, after=[{"_target_": "ToNumpyd", "keys": "image"}]
                    )
                },
                r"preprocessing .* gives ndarray of shape \(1, 8, 12, 16\); expected one three-dimensional",
            ),
            (
                {
                    "inferer": {"_target_": "SimpleInferer"},
                    "network_def": {
                        "_target_": "torch.nn.Conv3d",
                        "in_channels": 2,
                        "out_channels": 3,
                        "kernel_size": 1,
                    },
                },
                r"does not fit network_def",
            ),
        ],
    )
    def test_is_refused(self, threshold, segmenter, case, tmp_path, changes, message):
        with pytest.raises(ModelError, match=message):
            predicted(segmenter(threshold(**changes)), case.view(), tmp_path)

    def test_an_overlap_without_windows(self, threshold, segmenter, case, tmp_path):
        bundle = threshold(inferer={"_target_": "SimpleInferer"})

        with pytest.raises(ModelError, match=r"overlap is set, but the inferer .* is a SimpleInferer"):
            predicted(segmenter(bundle, overlap=0.25), case.view(), tmp_path)

    @pytest.mark.parametrize(
        ("levels", "message"),
        [
            ([4, 8], r"inferer .* gives \(1, 4, 12, 10, 8\) for case odd, expected .* of \(11, 9, 7\)"),
            ([4, 8, 8], r"network .* fails on case odd, which is \(11, 9, 7\) voxels \(X, Y, Z\) after"),
        ],
    )
    def test_a_volume_that_cannot_be_halved(self, write_bundle, segmenter, affine, tmp_path, levels, message):
        network = {"spatial_dims": 3, "in_channels": 1, "out_channels": 4, "channels": levels}
        network |= {"strides": [2] * (len(levels) - 1)}
        bundle = write_bundle(
            tmp_path / "unet",
            {"inferer": {"_target_": "SimpleInferer"}, "network_def": {"_target_": "UNet", **network}},
            weights=UNet(**network).state_dict(),
        )
        write_volume(tmp_path / "odd.nii.gz", np.zeros((7, 9, 11), np.float32), affine)
        view = CaseView(case_id="odd", patient_id="odd", image=tmp_path / "odd.nii.gz")

        with pytest.raises(ModelError, match=message):
            predicted(segmenter(bundle), view, tmp_path)

    def test_several_image_channels(self, threshold, segmenter, tmp_path):
        bundle = threshold()
        meta = json.loads((bundle / "configs" / "metadata.json").read_text())
        meta["network_data_format"]["inputs"]["image"]["num_channels"] = 4
        (bundle / "configs" / "metadata.json").write_text(json.dumps(meta))

        with pytest.raises(ModelError, match=r"takes 4 image channels; the cohort has one image per case"):
            segmenter(bundle).fit([], STRUCTURES, tmp_path / "w", seed=0)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"network_data_format": {"inputs": {}, "outputs": {}}}']
    )
    def test_broken_metadata(self, threshold, segmenter, tmp_path, text):
        bundle = threshold()
        (bundle / "configs" / "metadata.json").write_text(text)

        with pytest.raises(ModelError, match=r"configuration of the bundle .* fails"):
            segmenter(bundle).fit([], STRUCTURES, tmp_path / "w", seed=0)


class TestBadCheckpoint:
    @pytest.fixture
    def checkpoint(self, threshold, segmenter, tmp_path):
        (checkpoint,) = segmenter(threshold()).fit([], STRUCTURES, tmp_path / "w", seed=0)
        return checkpoint

    def test_of_another_bundle(self, checkpoint, write_bundle, segmenter, case, tmp_path):
        other = write_bundle(tmp_path / "other")

        with pytest.raises(
            ModelError, match=r"was made with another bundle than .*other, or its configuration"
        ):
            segmenter(other).predict([case.view()], checkpoint, STRUCTURES, tmp_path / "p")

    def test_with_the_weights_of_another_network(
        self, checkpoint, threshold, segmenter, write_bundle, case, tmp_path
    ):
        other = write_bundle(tmp_path / "other")
        (another,) = segmenter(other).fit([], STRUCTURES, tmp_path / "o", seed=0)
        beside = checkpoint.path.with_suffix(".json")
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "sha256": another.sha256}))
        shutil.copy(another.path, checkpoint.path)
        mixed = type(checkpoint)(path=checkpoint.path, sha256=another.sha256, step=0, structures=())

        with pytest.raises(ModelError, match=r"weights do not fit the network of the bundle .*threshold"):
            segmenter(tmp_path / "threshold").predict([case.view()], mixed, STRUCTURES, tmp_path / "p")

    def test_of_another_family(self, checkpoint, segmenter, case, tmp_path):
        beside = checkpoint.path.with_suffix(".json")
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "family": "torch"}))

        with pytest.raises(ModelError, match=r"of the family 'torch', .* 'bundle'"):
            segmenter(tmp_path / "threshold").predict([case.view()], checkpoint, STRUCTURES, tmp_path / "p")

    def test_whose_description_is_broken(self, checkpoint, segmenter, case, tmp_path):
        beside = checkpoint.path.with_suffix(".json")
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "channels": 3}))

        with pytest.raises(ModelError, match=r"is no description of a checkpoint"):
            segmenter(tmp_path / "threshold").predict([case.view()], checkpoint, STRUCTURES, tmp_path / "p")

    def test_of_structures_that_the_cohort_does_not_have(self, checkpoint, segmenter, case, tmp_path):
        with pytest.raises(ModelError, match=r"was trained on \['spleen'\], which the cohort does not have"):
            segmenter(tmp_path / "threshold").predict(
                [case.view()], checkpoint, (STRUCTURES[0],), tmp_path / "p"
            )

    def test_no_case(self, checkpoint, segmenter, tmp_path):
        with pytest.raises(ModelError, match=r"no case to predict"):
            segmenter(tmp_path / "threshold").predict([], checkpoint, STRUCTURES, tmp_path / "p")
