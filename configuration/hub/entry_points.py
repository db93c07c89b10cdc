"""The classes by which transformers loads a saved model, as file and class of the code that lies beside its weights."""

from typing import Any


AUTO_MAP = {
    "AutoConfig": "configuration_bga_mner.BgaMnerConfig",
    "AutoModel": "modeling_bga_mner.BgaMnerModel",
    "AutoModelForSequenceClassification": "modeling_bga_mner.BgaMnerForSequenceClassification",
    "AutoModelForTokenClassification": "modeling_bga_mner.BgaMnerForTokenClassification",
    "AutoProcessor": "processing_bga_mner.BgaMnerProcessor",
}
"""What `config.json` and `processor_config.json` say under the key of this name."""

CUSTOM_PIPELINES: dict[str, dict[str, Any]] = {
    "multimodal-ner": {"impl": "pipeline_bga_mner.BgaMnerPipeline", "pt": ["AutoModelForTokenClassification"]}
}
"""What `config.json` says under the key of this name."""

CODE_FILES = (
    "configuration_bga_mner.py",
    "modeling_bga_mner.py",
    "processing_bga_mner.py",
    "pipeline_bga_mner.py",
)
"""The code that is saved with a model; a file imports from those before it."""


__all__ = ["AUTO_MAP", "CODE_FILES", "CUSTOM_PIPELINES"]
