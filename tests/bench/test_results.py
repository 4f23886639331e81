"""What README says was measured is what was measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.frame import Row
from bench.results import DOCUMENTS, FIGURE, figure, rendered, save

# A number that claims a measurement: of a time or a cost, in a sentence that links to the benchmarks.
QUOTED = re.compile(r"(?<![\w.])0\.\d+(?![\w.])")


def saved(folder: Path) -> Path:
    row = {"benchmark": "b", "quick": False, **Row("read 100 CPU", 1.0, 23.0, None, "ms").to_dict()}
    return save("b", [{**row, "machine": {"cores": 2}, "versions": {"feast": "0"}}], folder)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_quote_the_saved_results(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert rendered(text) == text, "run python -m bench.results"
    assert FIGURE.findall(text), "the figures are generated"
    assert not QUOTED.findall(FIGURE.sub("", text)), "a number that no result backs"


def test_a_figure_follows_the_results(tmp_path: Path) -> None:
    path = saved(tmp_path)
    old = "takes <!-- figure: b/read 100 CPU/ratio_to_peer -->0.08<!-- /figure --> of the time"
    new = "takes <!-- figure: b/read 100 CPU/ratio_to_peer -->0.043<!-- /figure --> of the time"
    assert rendered(old, tmp_path) == new and rendered(new, tmp_path) == new
    kept = json.loads(path.read_text())
    assert kept["machine"] == {"cores": 2} and kept["rows"][0]["ours"] == 1.0


def test_a_figure_that_is_not_there(tmp_path: Path) -> None:
    saved(tmp_path)
    for benchmark, row, column in (("c", "x", "ours"), ("b", "x", "ours"), ("b", "read 100 CPU", "limit")):
        with pytest.raises(KeyError):
            figure(benchmark, row, column, tmp_path)


def test_a_quick_run_is_not_saved(tmp_path: Path) -> None:
    row = {"benchmark": "b", "quick": True, **Row("r", 1.0, None, None, "s").to_dict()}
    with pytest.raises(ValueError, match="quick"):
        save("b", [row], tmp_path)
