"""Where a bundle lies: a folder, a zip file that is unpacked once, or a name that is downloaded once."""

import hashlib
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cohort.errors import MissingExtraError, ModelError
from segmenters.bundle_config import HUB
from segmenters.program import run_program

METADATA = Path("configs/metadata.json")
INFERENCE = tuple(Path("configs") / f"inference.{suffix}" for suffix in ("json", "yaml", "yml"))
_DOWNLOADS = ("fire", "huggingface_hub")


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFiles:
    """The files of a bundle.

    Args:
        root: its folder.
        inference: its configuration of inference, JSON or YAML.
    """

    root: Path
    inference: Path

    @property
    def metadata(self) -> Path:
        """What its images and channels are."""
        return self.root / METADATA

    def definition_sha256(self) -> str:
        """Hash of all that says what its weights are for: metadata, inference, and its own Python code."""
        digest = hashlib.sha256()
        for path in (self.metadata, self.inference, *sorted(self.root.rglob("*.py"))):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(self.root).as_posix()}\0{len(data)}\0".encode() + data)
        return digest.hexdigest()


def find_bundle(path: str, workspace: Path) -> BundleFiles:
    """The files of a bundle, unpacked or downloaded where that was not done before.

    Args:
        path: of the configuration.
        workspace: folder for what is unpacked or downloaded; it is not made for a bundle that is a folder.

    Raises:
        ModelError: if there is no bundle, or it cannot be unpacked or downloaded.
        MissingExtraError: if a download needs a package that is not installed.
    """
    kept = workspace / "bundles"
    if path.startswith(HUB):
        return _files(_downloaded(path.removeprefix(HUB), kept), path)
    given = Path(path).expanduser()
    if given.is_dir():
        return _files(given.resolve(), path)
    if given.is_file():
        return _files(_unpacked(given, kept), path)
    raise ModelError(
        f"The bundle {path} does not exist; expected its folder or zip file, for example from "
        "python -m monai.bundle download --name NAME --bundle_dir FOLDER"
    )


def _files(folder: Path, path: str) -> BundleFiles:
    inside = [found.parent.parent for found in folder.glob(f"*/{METADATA}")]
    roots = [folder] if (folder / METADATA).is_file() else inside
    if len(roots) != 1:
        raise ModelError(f"{path} is no MONAI bundle: expected {METADATA} in it, found {len(roots)}")
    inference = [roots[0] / name for name in INFERENCE if (roots[0] / name).is_file()]
    if not inference:
        raise ModelError(
            f"The bundle {path} has no configuration of inference; expected configs/inference.json or .yaml"
        )
    return BundleFiles(root=roots[0], inference=inference[0])


def _unpacked(archive: Path, kept: Path) -> Path:
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

    def unpack(folder: Path) -> None:
        try:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(folder)
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
            raise ModelError(
                f"The bundle {archive} cannot be unpacked ({error}); expected a zip file: copy it again"
            ) from error

    return _once(kept / f"{archive.stem}-{sha256[:12]}", unpack)


def _downloaded(name: str, kept: Path) -> Path:
    def download(folder: Path) -> None:
        if any(find_spec(package) is None for package in _DOWNLOADS):
            raise MissingExtraError("The download of a MONAI bundle", "bundle")
        bundle, _, version = name.partition("@")
        command = [sys.executable, "-m", "monai.bundle", "download", "--name", bundle]
        command += ["--bundle_dir", str(folder), *(["--version", version] if version else [])]
        try:
            run_program(command, kept, "download")
        except ModelError as error:
            raise ModelError(
                f"The bundle {name!r} cannot be downloaded: {error}. Without a network, download it "
                f"elsewhere with python -m monai.bundle download --name {bundle} --bundle_dir FOLDER, copy "
                "the folder here and set path to it"
            ) from error

    return _once(kept / name, download)


def _once(finished: Path, make: Callable[[Path], None]) -> Path:
    """A folder that is made under a hidden name and then renamed, so that it is whole or not there."""
    if finished.is_dir():
        return finished
    partial = finished.with_name(f".{finished.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        make(partial)
        partial.rename(finished)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return finished
