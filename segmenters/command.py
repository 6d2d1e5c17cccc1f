"""The segmenter behind any command: a program that reads images from a folder and writes masks to another."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cohort.case import CaseView, Structure
from cohort.errors import ConfigError, ModelError
from cohort.records import Checkpoint, Prediction, TrainingCase
from cohort.volume import read_image, write_bytes
from segmenters.base import Report
from segmenters.command_config import CommandConfig
from segmenters.command_files import (
    bench,
    check_all_written,
    clear_bench,
    offer_image,
    offer_label_map,
    read_masks,
    resolve_sources,
    write_cohort_file,
)
from segmenters.command_template import Template
from segmenters.descriptions import (
    broken_description,
    check_weights,
    describe,
    read_description,
    weights_sha256,
)
from segmenters.predictions import find_prediction, write_prediction
from segmenters.preprocessing import trained_structures
from segmenters.program import run_program


class CommandSegmenter:
    """Calls a program that trains and predicts, or only predicts; see `segmenters.base.Segmenter`.

    Without `fit` the program is used as it is: it is taken never to have seen a case of the cohort, so its
    masks of labelled cases are as good as cross-fitted ones. With it, every checkpoint is a training of its
    own.

    Args:
        config: the command lines, and how to read what the program writes.
    """

    def __init__(self, config: CommandConfig) -> None:
        self._config = config

    @property
    def config(self) -> CommandConfig:
        """What the segmenter was made with."""
        return self._config

    def fit(
        self,
        cases: Sequence[TrainingCase],
        structures: Sequence[Structure],
        out: Path,
        *,
        seed: int,
        steps: int | None = None,
        checkpoint_steps: Sequence[int] = (),
        report: Report | None = None,
    ) -> tuple[Checkpoint, ...]:
        """Have the program train, once per checkpoint; see `segmenters.base.Segmenter.fit`.

        A program without `fit` learns nothing: its one checkpoint, of step 0, says what the program is.

        Raises:
            ModelError: without cases or annotated structures, or if the program fails or writes nothing.
            ConfigError: if `labels` does not fit the structures.
            DataError: if a file is missing or broken.
        """
        sources = resolve_sources(self._config, structures)
        if not self._config.fit:
            known = tuple(structure.name for structure, found in sources.items() if found)
            return (self._describe(_checkpoint(out, 0), 0, known, {}),)
        total = self._config.steps if steps is None else steps
        names = tuple(structure.name for structure in trained_structures(cases, structures))
        wanted = sorted({*checkpoint_steps, total})
        checkpoints = []
        for done, step in enumerate(wanted, start=1):
            files = self._train(cases, structures, out, step, seed)
            checkpoints.append(self._describe(_checkpoint(out, step), step, names, files))
            if report is not None:
                report(done, len(wanted), {})
        return tuple(checkpoints)

    def predict(
        self,
        cases: Sequence[CaseView],
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
        *,
        uncertainty: Sequence[str] = (),
        report: Report | None = None,
    ) -> tuple[Prediction, ...]:
        """Have the program write masks, and keep them as label maps; see `segmenters.base.Segmenter.predict`.

        Raises:
            ModelError: without cases, if the checkpoint is of another command or has changed, or if the
                program fails or leaves a case out.
            ConfigError: if uncertainty is asked for, or `labels` does not fit the structures.
            DataError: if an image or a mask is missing or broken, or a mask does not fit image or cohort.
        """
        if not cases:
            raise ModelError("There is no case to predict; give at least one")
        if uncertainty:
            raise ConfigError(
                f"Predictions of {self._config.architecture} do not yield {', '.join(uncertainty)}: a "
                "program writes masks alone; take an estimator that needs no more, such as 'sentinel'"
            )
        resolve_sources(self._config, structures)
        self._check(checkpoint)
        found = {
            case.case_id: find_prediction(out, case.case_id, structures, checkpoint.sha256, ())
            for case in cases
        }
        missing = [case for case in cases if found[case.case_id] is None]
        clear_bench(out)
        together = 1 if self._config.one_by_one else max(1, len(missing))
        for start in range(0, len(missing), together):
            group = missing[start : start + together]
            found |= {made.case_id: made for made in self._segment(group, checkpoint, structures, out)}
            if report is not None:
                report(len(cases) - len(missing) + start + len(group), len(cases), {})
        return tuple(prediction for case in cases if (prediction := found[case.case_id]) is not None)

    def _train(
        self, cases: Sequence[TrainingCase], structures: Sequence[Structure], out: Path, step: int, seed: int
    ) -> dict[str, str]:
        """Run `fit`, keep the folder that it wrote, and give the hashes of its files."""
        kept = _weights(out, step)
        with bench(out) as folder:
            images, labels, weights = (folder / name for name in ("images", "labels", "weights"))
            weights.mkdir()
            for case in cases:
                offer_image(case.image, case.case_id, images)
                offer_label_map(case, structures, labels)
            write_cohort_file(cases, structures, labels)
            values = {"images": images, "labels": labels, "weights": weights, "steps": step, "seed": seed}
            self._run("fit", self._config.fit, values, out)
            files = _hashes(weights)
            if not files:
                raise ModelError(
                    f"The program of fit ended well but wrote nothing into {{weights}}; expected what it "
                    f"learned there: {self._config.fit}"
                )
            if kept.exists():
                shutil.rmtree(kept)
            weights.rename(kept)
        return files

    def _segment(
        self,
        cases: Sequence[CaseView],
        checkpoint: Checkpoint,
        structures: Sequence[Structure],
        out: Path,
    ) -> list[Prediction]:
        config, sources = self._config, resolve_sources(self._config, structures)
        with bench(out) as folder:
            images, masks = folder / "images", folder / "masks"
            masks.mkdir()
            offered = [offer_image(case.image, case.case_id, images) for case in cases]
            values: dict[str, object] = {"images": images, "output": masks}
            if config.one_by_one:
                case_id = cases[0].case_id
                name = case_id if config.masks == "per_structure" else f"{case_id}.nii.gz"
                values |= {"image": offered[0], "output": masks / name}
            if config.fit:
                values["weights"] = _weights(checkpoint.path.parent, checkpoint.step).resolve()
            self._run("predict", config.predict, values, out)
            check_all_written(config, masks, [case.case_id for case in cases])
            predictions = []
            for case in cases:
                image = read_image(case.image)
                labels = read_masks(config, sources, masks, case.case_id, image, case.image)
                predictions.append(
                    write_prediction(
                        out, case.case_id, labels, image.affine, structures, checkpoint.sha256, {}
                    )
                )
        return predictions

    def _run(self, key: str, text: str, values: Mapping[str, object], out: Path) -> None:
        command = Template.parse(key, text).filled({name: str(value) for name, value in values.items()})
        run_program(command, out, key)

    def _describe(
        self, path: Path, step: int, structures: tuple[str, ...], files: Mapping[str, str]
    ) -> Checkpoint:
        program = {**_program(self._config), "step": step, "files": dict(files)}
        write_bytes(path, json.dumps(program, indent=1, sort_keys=True).encode())
        return describe(path, family="command", step=step, structures=structures, details={})

    def _check(self, checkpoint: Checkpoint) -> None:
        """Refuse a checkpoint of another command, or one whose files are not those that were written."""
        read_description(checkpoint.path, "command")
        check_weights(checkpoint.path, checkpoint.sha256)
        try:
            made = json.loads(checkpoint.path.read_bytes())
            files = dict(made.pop("files"))
            del made["step"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise broken_description(checkpoint.path, error) from error
        own = _program(self._config)
        changed = sorted(key for key in own | made if own.get(key) != made.get(key))
        if changed:
            raise ModelError(
                f"{checkpoint.path} was made with another command ({', '.join(changed)} differ); predict "
                "with the segmenter that made it"
            )
        weights = _weights(checkpoint.path.parent, checkpoint.step)
        if files and _hashes(weights) != files:
            raise ModelError(f"The files in {weights} are not those that were trained; train again")


def _program(config: CommandConfig) -> dict[str, Any]:
    """What the program is, as JSON gives it back."""
    values = {key: value for key, value in asdict(config).items() if key != "steps"}
    return dict(json.loads(json.dumps(values)))


def _checkpoint(out: Path, step: int) -> Path:
    return out / f"step_{step:04d}.command"


def _weights(out: Path, step: int) -> Path:
    return out / f"step_{step:04d}.weights"


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return {path.relative_to(folder).as_posix(): weights_sha256(path) for path in files}
