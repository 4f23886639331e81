"""`earmark moderate` on bare folders, and on files of policies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.main import main
from tests.skips.audio import laid_out, music, write


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> tuple[Path, Path]:
    """A bank with a picture, a song and a text, and a folder with copies of them, others, and files that are broken."""
    bank, folder = tmp_path_factory.mktemp("bank"), tmp_path_factory.mktemp("folder")
    (folder / "sub").mkdir()
    Image.fromarray(photographs["cat"]).save(bank / "cat.png")
    Image.fromarray(photographs["cat"][40:, 50:]).save(folder / "sub" / "cropped.jpg", quality=60)
    Image.fromarray(photographs["coffee"]).save(folder / "coffee.webp")
    shutil.copy(bank / "cat.png", folder / "same.png")
    write(bank / "song.wav", music(3, 0, 28))
    write(folder / "episode 10.wav", laid_out(21, 12.0, music(3, 8, 10), 9.0)[0])
    write(folder / "episode 9.wav", laid_out(22, 25.0)[0])
    shutil.copy(bank / "song.wav", folder / "song again.wav")
    (bank / "insult.txt").write_text("You are all worthless scum and should leave.")
    (folder / "post.txt").write_text("you are ALL worthless scum... and should leave")
    (folder / "prose.md").write_text("The river was high that year.")
    (folder / "broken.jpg").write_text("no picture")
    (folder / "empty.mp3").write_bytes(b"")
    (folder / "slides.pptx").write_bytes(b"not looked at")
    return bank, folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["moderate", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_json_has_the_agreed_shape(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    bank, folder = folders
    code, found = told(capsys, "match", "--bank", bank, folder)
    assert code == 0
    fields = ["path", "exemplar", "modality", "tier", "score", "start_s", "end_s", "exemplar_start_s"]
    assert all(list(match) == fields for match in found["matches"])
    rows = {Path(m["path"]).relative_to(folder).as_posix(): m for m in found["matches"]}
    assert {name: (m["exemplar"], m["modality"], m["tier"]) for name, m in rows.items()} == {
        "sub/cropped.jpg": ("cat.png", "image", "fingerprint"),
        "same.png": ("cat.png", "image", "exact"),
        "episode 10.wav": ("song.wav", "audio", "fingerprint"),
        "song again.wav": ("song.wav", "audio", "exact"),
        "post.txt": ("insult.txt", "text", "hash"),
    }
    excerpt = rows["episode 10.wav"]
    times = [excerpt["start_s"], excerpt["end_s"], excerpt["exemplar_start_s"]]
    assert times == pytest.approx([12.0, 22.0, 8.0], abs=0.2)
    assert rows["same.png"]["start_s"] is rows["post.txt"]["end_s"] is None
    failures = {Path(f["path"]).name: f["reason"] for f in found["failures"]}
    assert failures.keys() == {"broken.jpg", "empty.mp3"}
    assert failures["broken.jpg"] == "not_picture: broken.jpg is none of JPEG, PNG, WEBP"


@pytest.mark.slow
def test_the_table_says_what_matched_and_where(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["moderate", "match", "--bank", str(folders[0]), str(folders[1])]) == 0
    out = capsys.readouterr().out
    assert "5 of 10 files match, 3 exemplars" in out
    assert "0:12.0 to 0:22.0" in out and "0:08.0" in out


def test_a_bank_of_pictures_alone_looks_at_pictures_alone(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(folders[0] / "cat.png", tmp_path / "cat.png")
    code, found = told(capsys, "match", "--bank", tmp_path, folders[1])
    assert code == 0
    assert sorted(Path(m["path"]).name for m in found["matches"]) == ["cropped.jpg", "same.png"]
    assert [Path(f["path"]).name for f in found["failures"]] == ["broken.jpg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["match", "--bank", "{empty}", "{empty}"], "holds no pictures, audio or texts"),
        (["match", "--bank", "{empty}/none", "{empty}"], "is not a folder"),
        (["match", "--bank", "{empty}", "{empty}", "--workers", "0"], "--workers must be 1 or more"),
        (["policies", "{empty}/none.yaml"], "cannot read the policies"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["moderate", *(a.format(empty=tmp_path) for a in arguments)]) != 0
    assert said in " ".join(capsys.readouterr().err.split())


def test_policies_that_ship_are_shown_and_can_be_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, "policies")
    assert code == 0
    assert [p["id"] for p in found["policies"]][:2] == ["banned-recordings", "banned-pictures"]
    (tmp_path / "mine.yaml").write_text(json.dumps(found))  # JSON is YAML
    assert told(capsys, "policies", tmp_path / "mine.yaml") == (0, found)
    assert main(["moderate", "policies"]) == 0
    assert "banned-recordings" in capsys.readouterr().out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two texts, of which one is an insult."""
    from core.config import Config
    from pipelines.inprocess import run_catalog

    root = tmp_path_factory.mktemp("moderated")
    rows = [
        {"content_id": "insult", "kind": "chapter", "title": "One", "text": "You are all worthless scum, leave!"},
        {"content_id": "prose", "kind": "chapter", "title": "Two", "text": "The river was high that year."},
    ]
    lines = [json.dumps({**row, "updated_at": "2026-01-01T00:00:00Z"}) for row in rows]
    (root / "catalog.jsonl").write_text("\n".join(lines))
    (root / "words.txt").write_text("You are all worthless scum and should leave.")
    run_catalog(str(root / "catalog.jsonl"), str(root / "store"), Config(device="cpu"))
    return root


@pytest.mark.slow
def test_a_case_from_the_exemplar_to_the_appeal(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--store", store / "store")
    _, added = told(capsys, "add", "abusive-language", store / "words.txt", "--state", "active", "--by", "ada", *where)
    assert added == {"exemplars": ["abusive-language/words.txt"], "failures": []}
    _, looked = told(capsys, "look", store / "words.txt", "--bank", "abusive-language", *where)
    assert [(m["exemplar"], m["tier"], m["state"]) for m in looked["matches"]] == [
        ("abusive-language/words.txt", "exact", "active")
    ]
    assert told(capsys, "look", store / "words.txt", "--tag", "nothing", *where)[1]["matches"] == []
    _, scanned = told(capsys, "scan", *where)
    assert scanned["actions"] == {"review": 1}
    _, found = told(capsys, "decisions", "--only", "review", *where)
    (decision,) = found["decisions"]
    assert (decision["content_id"], decision["policy_id"]) == ("insult", "abusive-language")
    _, head = told(capsys, "head", *where)
    _, queue = told(capsys, "queue", "--by", "bob", *where)
    assert [w["id"] for w in queue["queue"]] == [decision["id"]]
    last: dict[str, Any] = {"decision": None}
    for reviewer in ("bob", "cyd"):  # two, if it is one of those that two see
        if last["decision"] is None:
            _, last = told(
                capsys, "verdict", decision["id"][:10], "violates", "--by", reviewer, "--clause", "abuse.2", *where
            )
    assert last["decision"]["action"] == "restrict"
    code, appeal = told(capsys, "appeal", last["decision"]["id"], "--by", "author", "--text", "a joke", *where)
    assert code == 0 and appeal["decision"] == last["decision"]["id"]
    _, final = told(capsys, "verdict", last["decision"]["id"], "allowed", "--by", "dan", *where)
    assert final["decision"]["action"] == "none"
    code, replays = told(capsys, "replay", "--all", *where)
    # What the classifier that ships asked on the first day, the exemplar's, the reviewers' and the appeal's.
    assert code == 0 and all(r["same"] for r in replays["replays"]) and len(replays["replays"]) == 4
    code, report = told(capsys, "verify", "--head", head["head"], *where)
    assert code == 0 and report["whole"]
    _, shown = told(capsys, "show", last["decision"]["id"], *where)
    assert shown["statement_of_reasons"]["decision_visibility"] == ["DECISION_VISIBILITY_CONTENT_DISABLED"]
    _, sample = told(capsys, "sample", "abusive-language", "--count", "5", "--seed", "1", "--by", "ada", *where)
    assert sample["contents"] == ["prose"]
    _, missed = told(capsys, "sampled", "abusive-language", "prose", "allowed", "--by", "ada", *where)
    assert (missed["seen"], missed["wrong"]) == (1, 0)
    # A record that was changed is seen.
    blocks = sorted((store / "store/moderation/audit/blocks").iterdir())
    kept = blocks[0].read_bytes()
    blocks[0].write_bytes(kept.replace(b"abusive", b"abused!"))
    code, report = told(capsys, "verify", *where)
    assert code == 1 and report["problems"]
    blocks[0].write_bytes(kept)


@pytest.mark.slow
def test_texts_for_people_and_clear_errors(store: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    where = ["--store", str(store / "store")]
    listed = tmp_path / "list.csv"
    listed.write_text("type,indicator,status\nHASH_PDQ," + "ab" * 32 + ",MALICIOUS\nHASH_PDQ,zz,MALICIOUS\n")
    assert main(["moderate", "import", "banned-pictures", str(listed), *where]) == 0
    out = capsys.readouterr().out
    assert "1 exemplars in banned-pictures" in out and "row 2" in out
    assert main(["moderate", "export", "banned-pictures", *where]) == 0
    assert json.loads(capsys.readouterr().out)["data"][0]["indicator"] == "ab" * 32
    for command in (["exemplars"], ["scan"], ["decisions"], ["queue"], ["agreement"], ["missed", "abusive-language"]):
        assert main(["moderate", *command, *where]) == 0
        assert capsys.readouterr().out.strip()
    for command, error in (
        (["show", "zzz"], "no decision 'zzz'"),
        (["replay"], "--all"),
        (["look", str(tmp_path / "film.mkv")], "is no picture, audio or text"),
        (["add", "bank"], "give files and folders"),
        (["add", "bank", str(tmp_path / "nothing")], "is not a folder"),
        (["add", "bank", "--content", "nobody", "--modality", "text"], "'nobody' has no text"),
        (["calibrate", "abusive-language", "text", "--by", "ada"], "labels; a calibration needs 5 of each"),
        (["calibrate", "no-such", "text", "--by", "ada"], "no policy 'no-such'"),
        (["state", "nothing", "retired"], "no exemplar 'nothing'"),
        (["verify", "--head", "1:abc"], "no head of a chain"),
        (["policies", "--use"], "needs a file"),
    ):
        assert main(["moderate", *command, *where]) != 0
        assert error in capsys.readouterr().err.replace("\n", " "), command
