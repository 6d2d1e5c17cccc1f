"""Two real processes on the CPU."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from cohort.errors import ConfigError, DataError, ModelError
from segmenters.config import Augmentation
from segmenters.distributed import ALONE, Group, own_device, own_rank, process_group
from segmenters.torch_segmenter import TorchSegmenter
from segmenters.training_config import EarlyStopping, Resources

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[3]


@pytest.fixture
def cases(write_case):
    annotated = (["liver", "spleen"], ["liver"], ["spleen"], ["liver", "spleen"])
    return [
        write_case(name, seed, names)
        for seed, (name, names) in enumerate(zip("abcd", annotated, strict=True))
    ]


@pytest.fixture
def config(config):
    return replace(config, batch_size=4, augmentation=Augmentation(noise=0.3), learning_rate=1e-3)


def losses_and_weights(config, cases, structures, out, steps=40):
    curve = []
    found = TorchSegmenter(config, "cpu").fit(
        cases,
        structures,
        out,
        seed=3,
        steps=steps,
        checkpoint_steps=(1,),
        report=lambda step, total, metrics: curve.append(metrics),
    )
    weights = [safetensors.torch.load(c.path.read_bytes()) for c in found]
    return curve, [torch.cat([w[name].flatten() for name in sorted(w)]) for w in weights]


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_train_as_one(cases, structures, config, tmp_path, accumulate):
    one = replace(config, batch_size=4 // accumulate, accumulate=accumulate)
    threads = torch.get_num_threads()
    curve, weights = losses_and_weights(one, cases, structures, tmp_path / "1")

    shared, other = losses_and_weights(replace(one, processes=2), cases, structures, tmp_path / "2")

    assert len(curve) == 4
    for first, second in zip(curve, shared, strict=True):
        assert second == pytest.approx(first, rel=2e-4)
    for first, second, close in zip(weights, other, (1e-4, 5e-3), strict=True):
        assert float((first - second).norm() / first.norm()) < close
    assert not dist.is_initialized()
    assert torch.get_num_threads() == threads
    assert not [path for path in (tmp_path / "2").iterdir() if path.name.startswith(".")]


SCRIPT = """
import pickle, sys
from pathlib import Path
from segmenters.torch_segmenter import TorchSegmenter

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    config, cases, structures = pickle.loads((folder / "fit.pickle").read_bytes())
    found = TorchSegmenter(config, "cpu").fit(cases, structures, folder / "launched", seed=3, steps=20)
    print("sha256", found[-1].sha256)
"""


def launch(folder: Path) -> str:
    (folder / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(folder / "script.py"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_launched_processes_end_where_interrupted_ones_do(cases, structures, config, tmp_path):
    stopping = EarlyStopping(fraction=0.25, validate_every=5, patience=50)
    shared = replace(
        config, processes=2, early_stopping=stopping, resources=Resources(save_every=5), dropout=0.1
    )
    (tmp_path / "fit.pickle").write_bytes(pickle.dumps((shared, cases, structures)))

    def fit(report=None):
        segmenter = TorchSegmenter(shared, "cpu")
        return segmenter.fit(cases, structures, tmp_path / "parts", seed=3, steps=20, report=report)

    def kill(step, total, metrics):
        raise KeyError(step)

    with pytest.raises(KeyError, match="10"):
        fit(kill)
    assert (tmp_path / "parts" / ".training_state_000005.pt").exists()
    (resumed,) = fit()

    assert launch(tmp_path).split().count(resumed.sha256) == 2


def test_failure_of_another_process_is_named():
    with (
        pytest.raises(ModelError, match=r"Training process 1 failed: TypeError.*Group"),
        process_group(2, CPU, os.strerror, ()) as group,
    ):
        group.wait()
    assert not dist.is_initialized()


def test_failure_of_this_process_ends_the_others():
    with pytest.raises(KeyError, match="here"), process_group(2, CPU, Group.wait, ()) as group:
        assert group == Group(rank=0, size=2)
        raise KeyError("here")
    assert not dist.is_initialized()


def test_broken_case_is_named_before_processes_start(cases, structures, config, tmp_path):
    cases[1].image.write_bytes(b"\x1f\x8b broken")

    with pytest.raises(DataError, match=r"b\.nii\.gz cannot be read"):
        TorchSegmenter(replace(config, processes=2, spacing_mm=(3.0, 1.0, 0.5)), "cpu").fit(
            cases, structures, tmp_path / "w", seed=3
        )


def test_one_process_needs_no_group():
    with process_group(1, CPU, os.strerror, ()) as group:
        assert group is ALONE
        assert group.leads
        assert torch.equal(group.total(torch.tensor([2.0])), torch.tensor([2.0]))
        group.wait()
    assert own_rank(1) == 0
    assert own_device(CPU, 3, 4) == CPU


@pytest.mark.slow
def test_two_processes_train_as_one_under_deep_supervision(cases, structures, config, tmp_path):
    deep = replace(config, network="dynunet", channels=(4, 8, 8, 8), patch=(16, 16, 16))
    curve, _ = losses_and_weights(deep, cases, structures, tmp_path / "1", steps=3)
    shared, _ = losses_and_weights(replace(deep, processes=2), cases, structures, tmp_path / "2", steps=3)

    assert shared[-1] == pytest.approx(curve[-1], rel=2e-4)


def test_launcher_must_start_as_many_as_are_configured(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)

    assert own_rank(2) == 1
    for processes in (1, 4):
        with pytest.raises(ConfigError, match=rf"processes is {processes}, but the launcher started 2"):
            own_rank(processes)


def test_every_process_needs_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    assert own_device(torch.device("cuda"), 1, 2) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"processes is 4, but there are 2 GPUs"):
        own_device(torch.device("cuda"), 2, 4)
