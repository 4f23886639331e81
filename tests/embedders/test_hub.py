"""The hub profile on tiny seeded models, without a hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from catalog.audio import decode_audio
from catalog.media import SAMPLE_RATE, Audio, Picture, Text
from core.errors import ConfigError, ModelError
from embedders import clap
from embedders.clap import RATE, WINDOW, WindowListener
from embedders.hub import folder_hash, load_hub
from embedders.registry import load_profile
from tests.embedders import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def profile(hub_options: dict[str, Any]) -> Any:
    return load_hub("cpu", hub_options)


def test_the_bundled_profile_takes_another_text_model(profile: Any, hub_options: dict[str, Any]) -> None:
    text = load_profile("bundled", device="cpu", options={"text": hub_options["text"]}).text
    assert text.model_id == profile.text.model_id and text.dim == profile.text.dim != 384


def noise(folder: Path, seconds: float, seed: int = 0, rate: int = RATE) -> Path:
    path = folder / f"noise-{seconds}-{seed}.wav"
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def hear(profile: Any, path: Path) -> Audio:
    return decode_audio(path, listeners=profile.audio.raw.listeners())


def test_laion_clap_runs_with_numpy_2_and_without_a_hub(profile: Any, tmp_path: Path) -> None:
    assert int(np.__version__.split(".")[0]) >= 2
    audio = hear(profile, noise(tmp_path, 10.0))
    vector = profile.audio.raw.embed([audio])[0]
    assert "laion_clap" not in sys.modules, "the package's own front door asks a hub"
    # laion-clap's own path over the same samples, which fill one window exactly.
    samples, _ = soundfile.read(noise(tmp_path, 10.0), dtype="float32")
    network = profile.audio.raw._load()
    with torch.inference_mode():
        wave = {"waveform": torch.from_numpy(samples), "longer": torch.tensor([False])}
        expected = network.get_audio_embedding([wave])[0].numpy()
    assert float(vector @ expected) > 0.99999


def test_long_audio_is_heard_in_fixed_windows(profile: Any, tmp_path: Path) -> None:
    path = noise(tmp_path, 25.0)
    one, two = (profile.audio.raw.embed([hear(profile, path)])[0] for _ in range(2))
    assert one.tobytes() == two.tobytes()
    samples, _ = soundfile.read(path, dtype="float32")
    tail = np.zeros(WINDOW, np.float32)
    tail[:] = np.tile(samples[2 * WINDOW :], 2)  # 5 s fill the window twice
    windows = np.stack([samples[:WINDOW], samples[WINDOW : 2 * WINDOW], tail])
    expected = profile.audio.raw._windows(windows).mean(axis=0)
    assert float(one @ expected) / float(np.linalg.norm(expected)) > 0.99999


def test_an_hour_keeps_every_nth_window() -> None:
    listener = WindowListener()
    listener.start(RATE, 1)
    for number in range(70):
        for half in range(2):
            block = np.full((WINDOW // 2, 1), number / 100, np.float32)
            block[0] = half / 1000  # so that a window cut in the wrong place would differ
            listener.hear(block)
    windows = listener.finish()
    # 70 windows do not fit 32, nor do 35; every fourth does.
    assert [round(float(w[100]) * 100) for w in windows] == list(range(0, 70, 4))


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_the_blocks_do_not_matter(rate: int) -> None:
    samples = (0.1 * np.random.default_rng(1).standard_normal((rate * 12, 2))).astype(np.float32)
    found = []
    for size in (1_000, 50_000):
        listener = WindowListener()
        listener.start(rate, 2)
        for at in range(0, len(samples), size):
            listener.hear(samples[at : at + size])
        found.append(listener.finish())
    assert found[0].shape == (2, WINDOW)
    assert np.abs(found[0] - found[1]).max() <= 1 / clap.FULL_SCALE


def test_audio_decoded_without_the_listener_is_refused(profile: Any) -> None:
    with pytest.raises(ModelError, match="listeners"):
        profile.audio.raw.embed([Audio(np.zeros(SAMPLE_RATE, np.float32), 1.0)])


def test_words_are_in_the_space_of_sounds_and_pictures(profile: Any) -> None:
    for model in (profile.audio.raw, profile.image):
        vectors = model.embed_text(["calm piano", "loud river", "calm piano"])
        assert vectors.shape == (3, model.dim)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        assert np.allclose(vectors[0], vectors[2], atol=1e-6) and not np.allclose(vectors[0], vectors[1])


def test_a_model_is_named_by_its_bytes(hub_options: dict[str, Any], tmp_path: Path, profile: Any) -> None:
    other = tiny.sentence_model(tmp_path / "other", seed=1)
    changed = load_hub("cpu", {**hub_options, "text": str(other)})
    assert changed.text.model_id != profile.text.model_id
    assert folder_hash(Path(hub_options["text"])) in profile.text.model_id
    texts = [Text("calm piano")]
    assert not np.allclose(changed.text.embed(texts), profile.text.embed(texts))


def test_a_picture_s_vector_follows_its_pixels(profile: Any) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
    same, other = Picture(pixels, 60, 40), Picture(255 - pixels, 60, 40)
    vectors = profile.image.embed([same, other, same])
    assert vectors.shape == (3, 24)
    assert np.allclose(vectors[0], vectors[2], atol=1e-6) and not np.allclose(vectors[0], vectors[1])


class _Code:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(_Code.target),))

    target = ""


def test_a_checkpoint_that_holds_code_is_not_run(tmp_path: Path, hub_options: dict[str, Any]) -> None:
    _Code.target = str(tmp_path / "ran")
    torch.save({"state_dict": {"logit_scale_a": _Code()}}, tmp_path / "evil.pt")
    profile = load_hub("cpu", {**hub_options, "audio": str(tmp_path / "evil.pt")})
    with pytest.raises(ModelError, match="could run code"):
        profile.audio.raw.embed_text(["words"])
    assert not (tmp_path / "ran").exists()


def _broken(path: Path, kind: str) -> None:
    state = tiny.clap_state()
    if kind == "missing":
        del state["audio_projection.0.weight"]
    elif kind == "extra":
        state["visual.conv1.weight"] = torch.zeros(3)
    elif kind == "fusion":
        state["audio_branch.patch_embed.mel_conv2d.weight"] = torch.zeros(3)
    torch.save(state if kind != "list" else [1, 2], path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    if kind == "text":
        path.write_text("these are not weights")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("missing", "audio_projection.0.weight"),
        ("extra", "visual.conv1.weight"),
        ("fusion", "fusion checkpoint"),
        ("list", "no table of tensors"),
        ("cut", "checkpoint that torch can read"),
        ("text", r"could run code|torch can read"),
    ],
)
def test_checkpoints_that_do_not_fit(tmp_path: Path, kind: str, told: str) -> None:
    path = tmp_path / "bad.pt"
    _broken(path, kind)
    with pytest.raises(ModelError, match=told):
        clap.build_network(clap.read_checkpoint(path), "HTSAT-tiny")


def test_options_are_checked_before_any_work(hub_options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="audoi"):
        load_hub("cpu", {**hub_options, "audoi": "x"})
    with pytest.raises(ConfigError, match="630k-audioset-best.pt"):
        load_hub("cpu", {k: v for k, v in hub_options.items() if k != "audio"})
    with pytest.raises(ModelError, match="no checkpoint"):
        load_hub("cpu", {**hub_options, "audio": str(tmp_path / "nowhere.pt")})
    with pytest.raises(ModelError, match="give a local path"):
        load_hub("cpu", {**hub_options, "text": "nobody/no-such-model"})
    with pytest.raises(ModelError, match="no folder"):
        load_hub("cpu", {**hub_options, "image": "./nowhere"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        load_hub("cpu", {**hub_options, "image": str(tmp_path / "empty")})
    with pytest.raises(ModelError, match="HTSAT-base"):
        clap.build_network({"a": torch.zeros(1)}, "HTSAT-giant")


def test_words_need_a_tokenizer(hub_options: dict[str, Any]) -> None:
    bare = {k: v for k, v in hub_options.items() if k != "audio_tokenizer"}
    with pytest.raises(ModelError, match="audio_tokenizer"):
        load_hub("cpu", bare).audio.raw.embed_text(["calm"])


def test_a_run_with_the_hub_profile(hub_options: dict[str, Any], tmp_path: Path) -> None:
    from core.config import Config
    from core.storage import open_storage
    from pipelines.context import Run
    from pipelines.inprocess import run_catalog
    from pipelines.search import search
    from tests.pipelines.conftest import make_shelf

    shelf = make_shelf(tmp_path / "catalog", sounds=3, texts=2)
    config = Config(profile="hub", device="cpu", models=hub_options)
    summary = run_catalog(shelf.source, str(tmp_path / "store"), config)
    assert not summary["quarantine"] and summary["indexes"]["audio"]["count"] == 3
    run = Run(open_storage(tmp_path / "store"), "test", str(tmp_path), config)
    assert search(run, audio=shelf.folder / "sound-1.wav", k=1)["hits"][0]["content_id"] == "sound 1"
    assert len(search(run, text="calm river", by="audio", k=3)["hits"]) == 3
    assert search(run, text="calm river", by="image", k=3)["hits"][0]["content_id"] == "sound 0"
    again = run_catalog(shelf.source, str(tmp_path / "store"), config)
    assert all(not count for name, count in again["computed"].items())
