import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cohort.errors import ConfigError, DataError, ModelError
from sentinel.structures import known_structures
from sentinel.text import EMBEDDING_NORM, embed_names, hashed_embedding, load_published_embeddings

PUBLISHED = Path(__file__).parents[3].parent / "shared" / "data" / "quality_sentinel" / "label_embedding.pkl"


def test_table_covers_every_known_structure_and_tells_them_apart() -> None:
    vectors = embed_names(tuple(known_structures()), unknown="error")
    assert vectors.shape == (len(known_structures()), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), EMBEDDING_NORM, rtol=1e-5)
    similarity = vectors @ vectors.T / EMBEDDING_NORM**2
    np.fill_diagonal(similarity, -1.0)
    assert similarity.max() < 0.99


def test_related_names_are_closer_than_others() -> None:
    left, right, liver = embed_names(["left kidney", "kidney_right", "liver"])
    assert left @ right > left @ liver


def test_aliases_share_a_vector() -> None:
    first, second = embed_names(["oesophagus", "Esophagus"])
    np.testing.assert_array_equal(first, second)


def test_unknown_name_gets_a_vector_from_its_spelling_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="sentinel.text"):
        (vector,) = embed_names(["flux capacitor"])
    np.testing.assert_array_equal(vector, hashed_embedding("Flux_Capacitor"))
    assert "'flux capacitor' is not in the table" in caplog.text


def test_hashed_vectors_are_pinned_and_similar_for_similar_spellings() -> None:
    vector = hashed_embedding("flux capacitor")
    assert np.linalg.norm(vector) == pytest.approx(EMBEDDING_NORM)
    assert (np.flatnonzero(vector)[:4]).tolist() == [20, 26, 38, 45]
    assert vector @ hashed_embedding("flux capacitors") > vector @ hashed_embedding("warp drive")


def test_name_without_letters_still_has_a_vector() -> None:
    assert np.linalg.norm(hashed_embedding("  ")) == pytest.approx(EMBEDDING_NORM)


def test_unknown_name_can_be_refused() -> None:
    with pytest.raises(DataError, match=r"'livr' is not in the table.*did you mean liver"):
        embed_names(["livr"], unknown="error")


def test_unknown_policy() -> None:
    with pytest.raises(ConfigError, match="unknown_names is 'guess'"):
        embed_names(["liver"], unknown="guess")


def test_no_names() -> None:
    assert embed_names([]).shape == (0, 384)


def test_published_pickle_of_tensors_loads(tmp_path: Path) -> None:
    path = tmp_path / "label_embedding.pkl"
    vectors = {index: torch.randn(1, 512) for index in (0, 144)}
    path.write_bytes(pickle.dumps(vectors))
    loaded = load_published_embeddings(path)
    for index, vector in vectors.items():
        np.testing.assert_array_equal(loaded[index], vector[0].numpy())


@pytest.mark.skipif(not PUBLISHED.exists(), reason="published embeddings are not here")
def test_published_embeddings() -> None:
    loaded = load_published_embeddings(PUBLISHED)
    assert sorted(loaded) == list(range(145))
    assert all(vector.shape == (512,) and vector.dtype == np.float32 for vector in loaded.values())


class _Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.marker,))


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    path, marker = tmp_path / "label_embedding.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({0: _Attack(marker)}))
    with pytest.raises(ModelError, match="cannot be read as published text embeddings"):
        load_published_embeddings(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ([1, 2], "holds a list, expected a dict"),
        ({}, "holds a dict, expected a dict from class index"),
        ({0: torch.zeros(3)}, "holds Tensor for key 0"),
        ({"liver": torch.zeros(1, 512)}, "for key 'liver'"),
    ],
)
def test_another_content_is_refused(tmp_path: Path, content: object, match: str) -> None:
    path = tmp_path / "label_embedding.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match=match):
        load_published_embeddings(path)


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x04}"])
def test_broken_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "label_embedding.pkl"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"label_embedding\.pkl cannot be read"):
        load_published_embeddings(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_published_embeddings(tmp_path / "absent.pkl")
