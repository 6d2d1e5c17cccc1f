import json
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import yaml

from cohort.errors import MissingExtraError, ModelError
from segmenters import bundle_files
from segmenters.bundle_files import find_bundle


@pytest.fixture
def bundle(write_bundle, tmp_path):
    return write_bundle(tmp_path / "spleen")


@pytest.fixture
def zipped(bundle, tmp_path):
    """As MONAI's model zoo packs them: below one folder."""
    return Path(shutil.make_archive(str(tmp_path / "archive"), "zip", bundle.parent, bundle.name))


def test_a_folder_is_used_where_it_is(bundle, tmp_path):
    found = find_bundle(str(bundle), tmp_path / "work")

    assert found.inference == bundle.resolve() / "configs" / "inference.json"
    assert not (tmp_path / "work").exists()


def test_a_zip_file_is_unpacked_once(bundle, zipped, tmp_path):
    first = find_bundle(str(zipped), tmp_path / "work")
    (first.root / "mark").touch()
    second = find_bundle(str(zipped), tmp_path / "work")

    assert first == second
    assert (second.root / "mark").exists()
    assert first.definition_sha256() == find_bundle(str(bundle), tmp_path).definition_sha256()


def test_yaml_is_read_too(bundle, tmp_path):
    values = json.loads((bundle / "configs" / "inference.json").read_text())
    (bundle / "configs" / "inference.json").unlink()
    (bundle / "configs" / "inference.yaml").write_text(yaml.safe_dump(values))

    assert find_bundle(str(bundle), tmp_path).inference.name == "inference.yaml"


@pytest.mark.parametrize("changed", ["configs/metadata.json", "configs/inference.json", "scripts/net.py"])
def test_what_the_weights_are_for_has_a_hash(bundle, tmp_path, changed):
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text("one = 1\n")
    before = find_bundle(str(bundle), tmp_path).definition_sha256()
    (bundle / changed).write_text((bundle / changed).read_text() + " ")

    assert find_bundle(str(bundle), tmp_path).definition_sha256() != before


class TestBad:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(ModelError, match=r"nowhere does not exist; .* python -m monai.bundle download"):
            find_bundle(str(tmp_path / "nowhere"), tmp_path / "work")

    def test_a_broken_zip_file(self, zipped, tmp_path):
        zipped.write_bytes(zipped.read_bytes()[:200])

        with pytest.raises(ModelError, match=r"archive.zip cannot be unpacked \(.*\); expected a zip file"):
            find_bundle(str(zipped), tmp_path / "work")
        assert list((tmp_path / "work" / "bundles").iterdir()) == []

    def test_no_metadata(self, bundle, tmp_path):
        (bundle / "configs" / "metadata.json").unlink()

        with pytest.raises(
            ModelError, match=r"is no MONAI bundle: expected configs/metadata.json in it, found 0"
        ):
            find_bundle(str(bundle), tmp_path)

    def test_two_bundles(self, bundle, write_bundle, tmp_path):
        write_bundle(tmp_path / "liver")

        with pytest.raises(ModelError, match=r"is no MONAI bundle: .* found 2"):
            find_bundle(str(tmp_path), tmp_path / "work")

    def test_no_inference(self, bundle, tmp_path):
        (bundle / "configs" / "inference.json").unlink()

        with pytest.raises(
            ModelError, match=r"no configuration of inference; expected configs/inference.json"
        ):
            find_bundle(str(bundle), tmp_path)


class TestHub:
    @pytest.fixture
    def installed(self, monkeypatch):
        monkeypatch.setattr(bundle_files, "find_spec", lambda name: ModuleSpec(name, None))

    def test_what_a_download_needs_is_named(self, monkeypatch, tmp_path):
        monkeypatch.setattr(bundle_files, "find_spec", lambda name: None)

        with pytest.raises(MissingExtraError, match=r"download of a MONAI bundle .*sentinel-loop\[bundle\]"):
            find_bundle("hub:spleen", tmp_path)

    def test_is_downloaded_once(self, installed, monkeypatch, write_bundle, tmp_path):
        commands = []

        def download(command, logs, name):
            commands.append(command[1:])
            write_bundle(Path(command[command.index("--bundle_dir") + 1]) / "spleen")

        monkeypatch.setattr(bundle_files, "run_program", download)
        first = find_bundle("hub:spleen@0.5.9", tmp_path / "work")

        assert find_bundle("hub:spleen@0.5.9", tmp_path / "work") == first
        (command,) = commands
        assert command[:5] == ["-m", "monai.bundle", "download", "--name", "spleen"]
        assert command[-2:] == ["--version", "0.5.9"]
        assert first.root == tmp_path / "work" / "bundles" / "spleen@0.5.9" / "spleen"

    def test_no_network(self, installed, monkeypatch, tmp_path):
        def download(command, logs, name):
            raise ModelError("The program python ended with exit code 1: Max retries exceeded")

        monkeypatch.setattr(bundle_files, "run_program", download)

        with pytest.raises(
            ModelError, match=r"'spleen' cannot be downloaded: .*Max retries.* set path to it"
        ):
            find_bundle("hub:spleen", tmp_path / "work")
        assert list((tmp_path / "work" / "bundles").iterdir()) == []
