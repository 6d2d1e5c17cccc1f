import sysconfig
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import prefect
import pytest

from flows import environment, launch


@pytest.mark.parametrize("hidden", [True, False])
def test_no_installed_module_hides_the_standard_library_from_prefects_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hidden: bool
) -> None:
    installed = tmp_path / "site-packages"
    package = installed / "prefect"
    package.mkdir(parents=True)
    if hidden:
        (installed / "argparse.py").write_text("")
    spec = ModuleSpec("prefect", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(environment, "find_spec", lambda name: spec)
    monkeypatch.setattr(prefect, "__module_path__", package)

    environment.prepare(tmp_path)

    first_on_the_path = prefect.__module_path__.parent
    assert first_on_the_path == (Path(sysconfig.get_path("stdlib")) if hidden else installed)


def test_a_fresh_comparison_has_a_folder_for_prefect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect makes the last folder alone, and warns where it cannot."""
    folder, ready = tmp_path / "runs" / "two", []
    config = SimpleNamespace(folder=folder, campaigns_root=folder / "campaigns")
    monkeypatch.setattr(environment, "prepare", lambda root: ready.append(root.is_dir()))
    monkeypatch.setattr("flows.comparison_report.report", lambda comparison: "a page")
    assert launch.report_comparison(SimpleNamespace(config=config)) == "a page"  # type: ignore[arg-type]
    assert ready == [True]


def test_processes_get_folders_of_their_own(tmp_path: Path) -> None:
    with environment.process_folder(tmp_path) as first, environment.process_folder(tmp_path) as second:
        assert (first, second) == (tmp_path / "0", tmp_path / "1")
    with environment.process_folder(tmp_path) as again:
        assert again == first
