"""Programs that the test writes: thresholds of intensity, told by their arguments."""

import json
import shlex
import sys
import textwrap

import numpy as np
import pytest

from cohort.case import Structure
from cohort.errors import ConfigError, DataError, GeometryError, ModelError
from cohort.volume import read_label_map, write_volume
from segmenters.base import find_checkpoints
from segmenters.command import CommandSegmenter
from segmenters.command_config import CommandConfig

STRUCTURES = (Structure(name="liver", label=2), Structure(name="spleen", label=5))

TOOL = """
    import sys
    from pathlib import Path
    import nibabel as nib
    import numpy as np

    how, images, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    print("working on", images.name, flush=True)
    names = {"liver": lambda a: a > 50, "spleen": lambda a: a < -50, "skin": lambda a: a == a.max()}

    def save(image, array, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, image.affine), path)

    for path in sorted(images.glob("*.nii.gz")) if images.is_dir() else [images]:
        image = nib.load(path)
        array = image.get_fdata()
        name = path.name.removesuffix(".nii.gz")
        alone = not images.is_dir()
        if how == "per_structure":
            for mask, chosen in names.items():
                folder = output if alone else output / name
                save(image, chosen(array).astype(np.uint8), folder / f"{mask}.nii.gz")
            continue
        labels = np.where(array > 50, 7, np.where(array < -50, 8, 0)).astype(np.int16)
        if how == "strange":
            labels[0, 0, 0] = 9
        if how == "other_grid":
            labels = labels[1:]
        if how == "not_the_last" and path == sorted(images.glob("*.nii.gz"))[-1]:
            break
        if how == "broken":
            output.joinpath(path.name).write_bytes(b"no volume")
            continue
        save(image, labels, output if alone else output / path.name)
    if how == "fails":
        sys.exit("the licence has run out")
"""

TRAINER = """
    import json, sys
    from pathlib import Path
    import nibabel as nib

    images, labels, weights, steps, seed = (*map(Path, sys.argv[1:4]), *sys.argv[4:6])
    cohort = json.loads((labels / "cohort.json").read_text())
    found = {}
    for path in sorted(images.glob("*.nii.gz")):
        array, reference = nib.load(path).get_fdata(), nib.load(labels / path.name).get_fdata()
        for name in cohort["annotated"][path.name.removesuffix(".nii.gz")]:
            label = cohort["labels"][name]
            found[label] = float(array[reference == label].mean())
    if steps != "13":
        (weights / "deep").mkdir()
        learned = {"means": found, "steps": steps, "seed": seed}
        (weights / "deep" / "means.json").write_text(json.dumps(learned))
"""

NEAREST = """
    import json, sys
    from pathlib import Path
    import nibabel as nib
    import numpy as np

    images, output, weights = map(Path, sys.argv[1:4])
    means = {0: 0.0, **json.loads((weights / "deep" / "means.json").read_text())["means"]}
    for path in sorted(images.glob("*.nii.gz")):
        image = nib.load(path)
        distance = np.stack([np.abs(image.get_fdata() - mean) for mean in means.values()])
        labels = np.array(list(means), dtype=int)[distance.argmin(axis=0)].astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), output / path.name)
"""


@pytest.fixture
def program(tmp_path):
    def write(code: str, *arguments: str) -> str:
        path = tmp_path / "in house" / f"tool{len(code)}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(code))
        return shlex.join([sys.executable, str(path)]) + " " + " ".join(arguments)

    return write


@pytest.fixture
def tool(program):
    def make(how="label_map", images="{images}", **settings) -> CommandSegmenter:
        settings = {"labels": {"liver": 7, "spleen": 8}, **settings}
        return CommandSegmenter(CommandConfig(predict=program(TOOL, how, images, "{output}"), **settings))

    return make


@pytest.fixture
def views(write_case, as_case):
    return [as_case(write_case(name, seed)).view() for name, seed in (("one", 1), ("two", 2))]


def untrained(segmenter, tmp_path):
    (checkpoint,) = segmenter.fit(
        [], STRUCTURES, tmp_path / "weights", seed=0, steps=40, checkpoint_steps=[10]
    )
    return checkpoint


def predicted(segmenter, views, tmp_path, structures=STRUCTURES, **options):
    checkpoint = untrained(segmenter, tmp_path)
    return segmenter.predict(views, checkpoint, structures, tmp_path / "out", **options)


def assert_masks_fit(predictions, views, labels=frozenset({2, 5})):
    for prediction, view in zip(predictions, views, strict=True):
        found = read_label_map(prediction.mask)
        image = read_reference(view)
        assert set(np.unique(found.array)) == {0, *labels}
        np.testing.assert_array_equal(
            found.array == 2, (image == 2) if 2 in labels else np.zeros_like(image, bool)
        )
        np.testing.assert_array_equal(found.array == 5, image == 5)


def read_reference(view):
    return read_label_map(view.image.with_name(f"{view.case_id}_labels.nii.gz")).array


class TestPredict:
    def test_one_label_map_per_case(self, tool, views, tmp_path):
        predictions = predicted(tool(), views, tmp_path)

        assert_masks_fit(predictions, views)
        assert [p.voxels["liver"] for p in predictions] == [
            int((read_reference(v) == 2).sum()) for v in views
        ]
        assert (tmp_path / "out" / "predict.out.log").read_text() == "working on images\n"
        assert not (tmp_path / "out" / ".command").exists()

    def test_a_folder_per_case_with_a_mask_per_structure(self, tool, views, tmp_path):
        assert_masks_fit(
            predicted(tool("per_structure", masks="per_structure", labels={}), views, tmp_path), views
        )

    @pytest.mark.parametrize("masks", ["label_map", "per_structure"])
    def test_a_program_that_takes_one_image(self, tool, views, tmp_path, masks):
        told = []
        labels = {"liver": 7, "spleen": 8} if masks == "label_map" else {}
        segmenter = tool(masks, images="{image}", masks=masks, labels=labels)

        predictions = predicted(segmenter, views, tmp_path, report=lambda *args: told.append(args))

        assert_masks_fit(predictions, views)
        assert told == [(1, 2, {}), (2, 2, {})]
        log = (tmp_path / "out" / "predict.out.log").read_text()
        assert log == "working on one.nii.gz\nworking on two.nii.gz\n"

    def test_masks_are_put_together(self, tool, views, tmp_path):
        names = {"liver": (), "spleen": ("liver", "spleen")}
        segmenter = tool("per_structure", masks="per_structure", labels=names)

        for prediction, view in zip(predicted(segmenter, views, tmp_path), views, strict=True):
            found, reference = read_label_map(prediction.mask).array, read_reference(view)
            np.testing.assert_array_equal(found == 5, reference > 0)
            assert prediction.voxels["liver"] == 0

    def test_only_missing_cases_are_segmented(self, tool, views, tmp_path):
        segmenter = tool()
        checkpoint = untrained(segmenter, tmp_path)
        first = segmenter.predict(views[:1], checkpoint, STRUCTURES, tmp_path / "out")
        before = first[0].mask.stat().st_mtime_ns
        log = tmp_path / "out" / "predict.out.log"

        both = segmenter.predict(views, checkpoint, STRUCTURES, tmp_path / "out")
        assert [prediction.case_id for prediction in both] == ["one", "two"]
        assert first[0].mask.stat().st_mtime_ns == before
        said = log.read_text()
        assert segmenter.predict(views, checkpoint, STRUCTURES, tmp_path / "out") == both
        assert log.read_text() == said

    def test_images_that_are_not_compressed_are_offered_compressed(self, tool, views, affine, tmp_path):
        image = np.zeros((8, 12, 16), dtype=np.float32)
        image[2:4, 3:5, 6:9], image[5:7, 7:9, 1:3] = 100.0, -100.0
        path = tmp_path / "plain.nii"
        write_volume(path, image, affine)
        view = type(views[0])(case_id="plain", patient_id="plain", image=path)

        (prediction,) = predicted(tool(), [view], tmp_path)

        assert prediction.voxels == {"liver": 12, "spleen": 8}

    def test_the_cohorts_own_labels_are_the_default(self, program, views, tmp_path):
        copy = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
        segmenter = CommandSegmenter(CommandConfig(predict=program(copy, "{images}", "{output}")))
        labels = np.zeros((8, 12, 16), dtype=np.uint8)
        labels[1], labels[2] = 2, 5
        write_volume(views[0].image, labels, np.eye(4))

        (prediction,) = predicted(segmenter, views[:1], tmp_path)

        assert prediction.voxels == {"liver": 192, "spleen": 192}


class TestBadOutput:
    """Each is one sentence, and nothing of the case is kept."""

    @pytest.mark.parametrize(
        ("how", "error", "message"),
        [
            ("strange", DataError, r"one.nii.gz, which python.* wrote, holds the labels \[9\], which are no"),
            ("other_grid", GeometryError, r"one.nii.gz has shape \(8, 12, 15\).* python.* wrote that"),
            ("broken", DataError, r"one.nii.gz cannot be read.* run it on .*one.nii.gz by hand"),
            ("fails", ModelError, r"exit code 1; the last lines that it wrote: the licence has run out"),
            ("not_the_last", ModelError, r"wrote no mask of two; expected <case_id>.nii.gz .*: one.nii.gz"),
        ],
    )
    def test_is_refused(self, tool, views, tmp_path, how, error, message):
        with pytest.raises(error, match=message):
            predicted(tool(how), views, tmp_path)

        left = {path.name for path in (tmp_path / "out").iterdir()}
        assert left == {"predict.out.log", "predict.err.log"}

    def test_labels_of_no_structure_can_be_background(self, tool, views, tmp_path):
        assert_masks_fit(predicted(tool("strange", unmapped="background"), views, tmp_path), views)

    def test_a_structure_without_its_mask(self, tool, views, tmp_path):
        segmenter = tool("per_structure", masks="per_structure", labels={"liver": "Leber"})

        with pytest.raises(
            DataError, match=r"no mask Leber.nii.gz of case one \(it wrote liver.nii.gz, skin"
        ):
            predicted(segmenter, views, tmp_path)

    def test_no_folder_of_masks(self, program, views, tmp_path):
        config = CommandConfig(predict=program("pass", "{images}", "{output}"), masks="per_structure")

        with pytest.raises(
            ModelError, match=r"no mask of one, two; expected <case_id>/<structure>.* nothing"
        ):
            predicted(CommandSegmenter(config), views, tmp_path)


class TestBadInput:
    def test_uncertainty(self, tool, views, tmp_path):
        with pytest.raises(ConfigError, match=r"do not yield entropy: a program writes masks alone"):
            predicted(tool(), views, tmp_path, uncertainty=["entropy"])

    def test_no_case(self, tool, tmp_path):
        with pytest.raises(ModelError, match=r"no case to predict"):
            predicted(tool(), [], tmp_path)

    def test_a_structure_that_the_cohort_does_not_have(self, tool, tmp_path):
        with pytest.raises(
            ConfigError, match=r"labels names \['heart'\], .* cohort are \['liver', 'spleen'\]"
        ):
            untrained(tool(labels={"heart": 3}), tmp_path)

    def test_a_label_that_means_two_structures(self, tool, tmp_path):
        with pytest.raises(ConfigError, match=r"5 in the output of python.* means both 'liver' and 'spleen'"):
            untrained(tool(labels={"liver": 5}), tmp_path)

    def test_a_broken_image(self, tool, views, tmp_path):
        views[1].image.write_bytes(views[1].image.read_bytes()[:-40])

        with pytest.raises(DataError, match=r"two.nii.gz cannot be read"):
            predicted(tool(), views, tmp_path)
        assert not (tmp_path / "out" / "one.json").exists()

    def test_a_checkpoint_of_another_command(self, tool, views, tmp_path):
        checkpoint = untrained(tool(), tmp_path)

        with pytest.raises(ModelError, match=r"was made with another command \(predict, unmapped differ\)"):
            tool("strange", unmapped="background").predict(views, checkpoint, STRUCTURES, tmp_path / "out")

    def test_a_checkpoint_of_another_family(self, tool, views, tmp_path):
        checkpoint = untrained(tool(), tmp_path)
        beside = checkpoint.path.with_suffix(".json")
        beside.write_text(json.dumps({**json.loads(beside.read_text()), "family": "torch"}))

        with pytest.raises(ModelError, match=r"of the family 'torch', .*'command'"):
            tool().predict(views, checkpoint, STRUCTURES, tmp_path / "out")


class TestFit:
    @pytest.fixture
    def trainer(self, program):
        return CommandSegmenter(
            CommandConfig(
                predict=program(NEAREST, "{images}", "{output}", "{weights}"),
                fit=program(TRAINER, "{images}", "{labels}", "{weights}", "{steps}", "{seed}"),
            )
        )

    @pytest.fixture
    def cases(self, write_case):
        return [write_case("a", 3, annotated=("liver",)), write_case("b", 4, annotated=("spleen",))]

    def test_learns_from_partly_annotated_cases(self, trainer, cases, views, tmp_path):
        *_, last = trainer.fit(cases, STRUCTURES, tmp_path / "w", seed=3, steps=9, checkpoint_steps=[4])

        predictions = trainer.predict(views, last, STRUCTURES, tmp_path / "out")

        for prediction, view in zip(predictions, views, strict=True):
            found, reference = read_label_map(prediction.mask).array, read_reference(view)
            for label in (2, 5):
                overlap = ((found == label) & (reference == label)).sum()
                assert 2 * overlap / ((found == label).sum() + (reference == label).sum()) > 0.9

    def test_keeps_a_checkpoint_per_step(self, trainer, cases, tmp_path):
        told = []
        checkpoints = trainer.fit(
            cases,
            STRUCTURES,
            tmp_path / "w",
            seed=3,
            steps=9,
            checkpoint_steps=[4],
            report=lambda *args: told.append(args),
        )

        assert [checkpoint.step for checkpoint in checkpoints] == [4, 9]
        assert checkpoints == find_checkpoints(tmp_path / "w")
        kept = json.loads((tmp_path / "w" / "step_0004.weights" / "deep" / "means.json").read_text())
        assert (kept["steps"], kept["seed"]) == ("4", "3")
        assert told == [(1, 2, {}), (2, 2, {})]

    def test_label_maps_hold_only_what_was_annotated(self, program, cases, tmp_path):
        keep = "import shutil, sys; shutil.copytree(sys.argv[1], sys.argv[2], dirs_exist_ok=True)"
        segmenter = CommandSegmenter(
            CommandConfig(
                predict="true {images} {output} {weights}",
                fit=program(keep, "{labels}", "{weights}", "{images}"),
            )
        )
        segmenter.fit(cases, STRUCTURES, tmp_path / "w", seed=0, steps=1)

        offered = tmp_path / "w" / "step_0001.weights"
        assert {path.name for path in offered.iterdir()} == {"a.nii.gz", "b.nii.gz", "cohort.json"}
        assert np.unique(read_label_map(offered / "a.nii.gz").array).tolist() == [0, 2]
        assert np.unique(read_label_map(offered / "b.nii.gz").array).tolist() == [0, 5]
        assert json.loads((offered / "cohort.json").read_text()) == {
            "labels": {"liver": 2, "spleen": 5},
            "annotated": {"a": ["liver"], "b": ["spleen"]},
        }

    def test_a_training_that_writes_nothing(self, trainer, cases, tmp_path):
        with pytest.raises(ModelError, match=r"ended well but wrote nothing into \{weights\}"):
            trainer.fit(cases, STRUCTURES, tmp_path / "w", seed=3, steps=13)
        assert find_checkpoints(tmp_path / "w") == ()

    def test_weights_that_changed(self, trainer, cases, views, tmp_path):
        (checkpoint,) = trainer.fit(cases, STRUCTURES, tmp_path / "w", seed=3, steps=9)
        (tmp_path / "w" / "step_0009.weights" / "deep" / "means.json").write_text("{}")

        with pytest.raises(ModelError, match=r"step_0009.weights are not those that were trained"):
            trainer.predict(views, checkpoint, STRUCTURES, tmp_path / "out")

    def test_no_training_case(self, trainer, tmp_path):
        with pytest.raises(ModelError, match=r"no training case"):
            trainer.fit([], STRUCTURES, tmp_path / "w", seed=3)
