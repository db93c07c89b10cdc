"""Multimodal named entity recognition with bidirectional generative alignment, the Hugging Face way.

Importing this package registers its classes with transformers' Auto classes and pipelines.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration import TEXT_ENCODERS, VISION_ENCODERS, BgaMnerConfig, ConvStagesConfig
from .modeling_bga import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
    BgaMnerModelOutput,
    BgaMnerPreTrainedModel,
    BgaMnerSequenceClassifierOutput,
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
    mark_target,
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
        WholeCheckpointCallback,
        alignment_report,
        bootstrap_interval,
        build_compute_metrics,
        cache_vision_states,
        check_checkpoint,
        check_settings,
        export_onnx,
        last_whole_checkpoint,
        map_labels,
        mismatch_pictures,
        name_tags,
        paired_bootstrap,
        predict_tags,
        read_annotations,
        read_conll,
        remove_pictures,
        robustness_report,
        score_tags,
        score_with_interval,
        summarize_training,
        tags_from_spans,
        to_bio,
        write_annotations,
        write_checkpoint,
        write_conll,
    )

__version__ = "0.1.0"

__all__ = [
    "TEXT_ENCODERS",
    "VISION_ENCODERS",
    "BadPictureError",
    "BgaMnerConfig",
    "BgaMnerForSequenceClassification",
    "BgaMnerForTokenClassification",
    "BgaMnerModel",
    "BgaMnerModelOutput",
    "BgaMnerPipeline",
    "BgaMnerPreTrainedModel",
    "BgaMnerProcessor",
    "BgaMnerSequenceClassifierOutput",
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
    "WholeCheckpointCallback",
    "alignment_report",
    "bootstrap_interval",
    "build_compute_metrics",
    "cache_vision_states",
    "check_checkpoint",
    "check_settings",
    "export_onnx",
    "labels_from_tags",
    "last_whole_checkpoint",
    "layerwise_parameter_groups",
    "load_image_processor",
    "load_picture",
    "lora_config",
    "map_labels",
    "mark_target",
    "mismatch_pictures",
    "name_tags",
    "paired_bootstrap",
    "predict",
    "predict_tags",
    "read_annotations",
    "read_conll",
    "remove_pictures",
    "repair_bio",
    "robustness_report",
    "score_tags",
    "score_with_interval",
    "spans_from_tags",
    "split_words",
    "summarize_training",
    "tags_from_spans",
    "to_bio",
    "write_annotations",
    "write_checkpoint",
    "write_conll",
]

AutoConfig.register(BgaMnerConfig.model_type, BgaMnerConfig)
AutoModel.register(BgaMnerConfig, BgaMnerModel)
AutoModelForSequenceClassification.register(BgaMnerConfig, BgaMnerForSequenceClassification)
AutoModelForTokenClassification.register(BgaMnerConfig, BgaMnerForTokenClassification)
AutoProcessor.register(BgaMnerConfig, BgaMnerProcessor)
PIPELINE_REGISTRY.register_pipeline("multimodal-ner", BgaMnerPipeline, pt_model=AutoModelForTokenClassification)


def __getattr__(name: str) -> Any:
    # what is not here yet pulls in datasets and evaluate, for which inference has no use: imported when first asked for
    if name in __all__:
        return getattr(import_module(".processing", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
