"""Keep the limit of a saved tokenizer at what the text encoder saved beside it takes.

Whoever loads the tokenizer alone, as the stock pipelines do, knows nothing of the encoder, and cuts texts there.
"""

import json
import os
from pathlib import Path

from ...configuration.configuration_bga_mner import BgaMnerConfig
from ..encoders.encoder import longest_text


def limit_beside(folder: str | os.PathLike[str]) -> int | None:
    """Return how many tokens the text encoder of a model in a folder takes; None if none of this package is there."""
    try:
        saved = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        if saved["model_type"] != BgaMnerConfig.model_type:
            return None
        return longest_text(BgaMnerConfig.from_dict(saved).text_config)
    except (OSError, ValueError, TypeError, KeyError):
        return None  # loading the model tells what is wrong


def lower_saved_limit(folder: str | os.PathLike[str], longest: int) -> None:
    """Lower the limit in `tokenizer_config.json`, if a tokenizer is there."""
    path = Path(folder, "tokenizer_config.json")
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved.get("model_max_length", longest + 1) <= longest:
            return
    except (OSError, ValueError, TypeError, AttributeError):
        return  # none, or nothing that transformers would read
    text = json.dumps(saved | {"model_max_length": longest}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


__all__ = ["limit_beside", "lower_saved_limit"]
