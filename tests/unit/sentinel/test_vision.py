import importlib
import sys

import pytest
import torch

from cohort.errors import ConfigError
from sentinel import vision


def test_torchvision_imports() -> None:
    vision.import_torchvision()
    assert "torchvision" in sys.modules


def test_another_failure_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(vision.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="on fire"):
        vision.import_torchvision()


def test_missing_operators_are_declared_once_importing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    attempts: list[str] = []

    class Library:
        def __init__(self, namespace: str, kind: str) -> None:
            assert (namespace, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema: str) -> None:
            declared.append(schema.split("(")[0])

    def first_fails(name: str) -> None:
        attempts.append(name)
        if len(attempts) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(vision.importlib, "import_module", first_fails)
    vision.import_torchvision()
    assert declared == ["nms", "qnms"]
    assert attempts == ["torchvision", "torchvision"]
    vision._KEPT_ALIVE.pop()


def test_unknown_backbone() -> None:
    assert importlib.import_module("sentinel.vision") is vision
    with pytest.raises(ConfigError, match="Unknown backbone"):
        vision.residual_network("resnet19")
