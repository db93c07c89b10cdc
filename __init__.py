"""Multimodal named entity recognition with bidirectional generative alignment, the Hugging Face way.

Importing this package registers its classes with transformers' Auto classes and pipelines.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoProcessor
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration import TEXT_ENCODERS, VISION_ENCODERS, BgaMnerConfig, ConvStagesConfig
from .modeling_bga import (
    BgaMnerForTokenClassification,
    BgaMnerModel,
    BgaMnerModelOutput,
    BgaMnerPreTrainedModel,
    BgaMnerTokenClassifierOutput,
    CollapseAlarmCallback,
    ConditionalRandomField,
    LossPartsCallback,
    layerwise_parameter_groups,
    lora_config,
)
from .processing import (
    BadPictureError,
    BgaMnerPipeline,
    BgaMnerProcessor,
    DataCollatorForMner,
    labels_from_tags,
    load_image_processor,
    load_picture,
    predict,
    repair_bio,
    spans_from_tags,
    split_words,
)


if TYPE_CHECKING:
    from .processing import (
        CardKeepingTrainer,
        ConllReport,
        MnerMetric,
        OnnxPredictor,
        alignment_report,
        bootstrap_interval,
        build_compute_metrics,
        cache_vision_states,
        export_onnx,
        map_labels,
        mismatch_pictures,
        paired_bootstrap,
        predict_tags,
        read_conll,
        remove_pictures,
        robustness_report,
        score_tags,
        score_with_interval,
        summarize_training,
        write_conll,
    )

__version__ = "0.1.0"

__all__ = [
    "TEXT_ENCODERS",
    "VISION_ENCODERS",
    "BadPictureError",
    "BgaMnerConfig",
    "BgaMnerForTokenClassification",
    "BgaMnerModel",
    "BgaMnerModelOutput",
    "BgaMnerPipeline",
    "BgaMnerPreTrainedModel",
    "BgaMnerProcessor",
    "BgaMnerTokenClassifierOutput",
    "CardKeepingTrainer",
    "CollapseAlarmCallback",
    "ConditionalRandomField",
    "ConllReport",
    "ConvStagesConfig",
    "DataCollatorForMner",
    "LossPartsCallback",
    "MnerMetric",
    "OnnxPredictor",
    "alignment_report",
    "bootstrap_interval",
    "build_compute_metrics",
    "cache_vision_states",
    "export_onnx",
    "labels_from_tags",
    "layerwise_parameter_groups",
    "load_image_processor",
    "load_picture",
    "lora_config",
    "map_labels",
    "mismatch_pictures",
    "paired_bootstrap",
    "predict",
    "predict_tags",
    "read_conll",
    "remove_pictures",
    "repair_bio",
    "robustness_report",
    "score_tags",
    "score_with_interval",
    "spans_from_tags",
    "split_words",
    "summarize_training",
    "write_conll",
]

AutoConfig.register(BgaMnerConfig.model_type, BgaMnerConfig)
AutoModel.register(BgaMnerConfig, BgaMnerModel)
AutoModelForTokenClassification.register(BgaMnerConfig, BgaMnerForTokenClassification)
AutoProcessor.register(BgaMnerConfig, BgaMnerProcessor)
PIPELINE_REGISTRY.register_pipeline("multimodal-ner", BgaMnerPipeline, pt_model=AutoModelForTokenClassification)


def __getattr__(name: str) -> Any:
    # what is not here yet pulls in datasets and evaluate, for which inference has no use: imported when first asked for
    if name in __all__:
        return getattr(import_module(".processing", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
