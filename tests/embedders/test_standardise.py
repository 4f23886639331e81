from __future__ import annotations

import json

import numpy as np
import pytest

from core.errors import ModelError
from embedders import standardise
from embedders.standardise import Standardised, Statistics, fit


class Raw:
    model_id = "raw-v1"
    dim = 3


def test_by_hand() -> None:
    statistics = fit(np.array([[0.0, 10.0, 5.0], [4.0, 30.0, 5.0]]), "raw-v1")
    assert statistics.mean.tolist() == [2.0, 20.0, 5.0]
    assert statistics.std[:2].tolist() == [2.0, 10.0]
    model = Standardised(Raw(), statistics)
    # (8 − 2) / 2 = 3 and (60 − 20) / 10 = 4: the triangle of sides 3, 4, 5; the constant dimension says nothing.
    assert model.apply(np.array([[8.0, 60.0, 5.0]]))[0] == pytest.approx([0.6, 0.8, 0.0], abs=1e-6)
    # Equal to the mean: no direction, but still a unit vector.
    assert model.apply(np.array([[2.0, 20.0, 5.0]]))[0].tolist() == [1.0, 0.0, 0.0]


def test_the_order_of_rows_does_not_matter_and_the_values_do() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((50, 8)).astype(np.float32)
    one, two = fit(matrix, "raw-v1"), fit(matrix[rng.permutation(50)], "raw-v1")
    assert one.hash == two.hash
    matrix[0, 0] += 1
    assert fit(matrix, "raw-v1").hash != one.hash


def test_bytes_and_back() -> None:
    statistics = fit(np.random.default_rng(1).standard_normal((9, 3)), "raw-v1")
    back = Statistics.from_bytes(statistics.to_bytes())
    assert back.hash == statistics.hash and back.count == 9
    assert Standardised(Raw(), back).model_id == f"raw-v1-{statistics.hash}"
    for damaged in (b"", b"[]", b"{}", json.dumps({"mean": [1], "std": [0], "count": 1, "raw_model_id": "x"}).encode()):
        with pytest.raises(ModelError, match="damaged"):
            Statistics.from_bytes(damaged)


def test_statistics_of_another_model_are_refused() -> None:
    with pytest.raises(ModelError, match="belong to other"):
        Standardised(Raw(), fit(np.eye(3), "other"))


def test_the_shipped_statistics_fit_the_shipped_model() -> None:
    from embedders.musicnn import MusicnnRaw

    statistics = standardise.default_statistics()
    assert statistics.raw_model_id == MusicnnRaw.model_id and statistics.count == 28
    assert len(statistics.mean) == MusicnnRaw.dim
