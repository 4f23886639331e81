"""Tiny seeded models in the formats of the hub profile, made without a hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = ["calm", "loud", "piano", "river", "sea", "bread", "the", "a", "of", "words", "song"]


def sentence_model(folder: Path, seed: int = 0) -> Path:
    """A BERT of 32 dimensions with mean pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    plain = folder / "plain"
    plain.mkdir(parents=True)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary += list("abcdefghijklmnopqrstuvwxyz0123456789")
    (plain / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(plain / "vocab.txt")).save_pretrained(plain)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(plain)
    model = SentenceTransformer(modules=[Transformer(str(plain)), Pooling(32)], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"


def clip_model(folder: Path, seed: int = 0) -> Path:
    """A CLIP with towers of two layers and a projection of 24 dimensions, as its authors' repositories lay it out."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor, CLIPTokenizerFast
    from transformers.models.clip.image_processing_clip import CLIPImageProcessor

    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=32)
    side = 32
    images = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    tower: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": len(tokens), "max_position_embeddings": 32, **ends},
        vision_config={**tower, "image_size": side, "patch_size": 8},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def roberta_tokenizer(folder: Path) -> Path:
    """A byte-level tokenizer with RoBERTa's special tokens and no merges."""
    from transformers import RobertaTokenizerFast

    folder.mkdir(parents=True)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *(chr(c) for c in range(33, 127))]
    (folder / "vocab.json").write_text(json.dumps({t: n for n, t in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    RobertaTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return folder


def clap_state(seed: int = 0) -> dict[str, Any]:
    """The tensors of a seeded HTSAT-tiny with a RoBERTa of one layer of 64 dimensions."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    from embedders.clap import DIM, _clap_module

    torch.manual_seed(seed)
    network, _ = _clap_module().create_model("HTSAT-tiny", "transformer")
    config = RobertaConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=80,
        type_vocab_size=1,
    )
    text = RobertaModel(config)
    names = ("text_branch.", "token_embedding", "positional_embedding", "ln_final", "text_projection")
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(names)}
    state |= {f"text_branch.{name}": tensor for name, tensor in text.state_dict().items()}
    for layer, width in ((0, 64), (2, DIM)):
        state[f"text_projection.{layer}.weight"] = torch.randn(DIM, width) / width**0.5
        state[f"text_projection.{layer}.bias"] = torch.zeros(DIM)
    return state


def clap_checkpoint(path: Path, seed: int = 0) -> Path:
    """A checkpoint as laion-clap trains: `module.` before every name, the counted positions among them."""
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    state = {f"module.{name}": tensor for name, tensor in clap_state(seed).items()}
    state["module.text_branch.embeddings.position_ids"] = torch.arange(80)[None]
    torch.save({"epoch": 1, "name": "tiny", "state_dict": state}, path)
    return path
