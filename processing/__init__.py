"""Raw text and pictures to tensors, and back to entities."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..configuration.messages import shown
from .data_collator import DataCollatorForMner
from .image_processors import load_image_processor
from .pictures import BadPictureError, load_picture
from .pipeline_bga_mner import BgaMnerPipeline
from .prediction import predict
from .processing_bga_mner import BgaMnerProcessor
from .tag_lists import labels_from_tags
from .tag_scheme import repair_bio, spans_from_tags
from .target_marking import mark_target
from .word_splitting import split_words


if TYPE_CHECKING:
    from .alignment_measures import alignment_report
    from .bootstrap import bootstrap_interval, paired_bootstrap, score_with_interval
    from .card_keeping_trainer import CardKeepingTrainer
    from .checkpoints import (
        WholeCheckpointCallback,
        check_checkpoint,
        check_settings,
        last_whole_checkpoint,
        write_checkpoint,
    )
    from .conll import read_conll
    from .conll_writing import write_conll
    from .data_report import ConllReport
    from .evaluation import predict_tags, robustness_report
    from .formats import read_annotations, tags_from_spans, write_annotations
    from .label_map import map_labels, name_tags
    from .mner_metric import MnerMetric, build_compute_metrics, score_tags
    from .onnx_export import export_onnx
    from .onnx_predictor import OnnxPredictor
    from .picture_removal import mismatch_pictures, remove_pictures
    from .tag_conversion import to_bio
    from .training_summary import summarize_training
    from .vision_cache import cache_vision_states

# These pull in datasets, evaluate, scikit-learn and onnxruntime, for which inference has no use: imported when first
# asked for.
_LAZY = {
    "alignment_report": "alignment_measures",
    "bootstrap_interval": "bootstrap",
    "paired_bootstrap": "bootstrap",
    "map_labels": "label_map",
    "name_tags": "label_map",
    "read_annotations": "formats",
    "tags_from_spans": "formats",
    "to_bio": "tag_conversion",
    "write_annotations": "formats",
    "export_onnx": "onnx_export",
    "OnnxPredictor": "onnx_predictor",
    "remove_pictures": "picture_removal",
    "mismatch_pictures": "picture_removal",
    "predict_tags": "evaluation",
    "robustness_report": "evaluation",
    "cache_vision_states": "vision_cache",
    "WholeCheckpointCallback": "checkpoints",
    "check_checkpoint": "checkpoints",
    "check_settings": "checkpoints",
    "last_whole_checkpoint": "checkpoints",
    "write_checkpoint": "checkpoints",
    "CardKeepingTrainer": "card_keeping_trainer",
    "ConllReport": "data_report",
    "read_conll": "conll",
    "write_conll": "conll_writing",
    "MnerMetric": "mner_metric",
    "build_compute_metrics": "mner_metric",
    "score_tags": "mner_metric",
    "score_with_interval": "bootstrap",
    "summarize_training": "training_summary",
}

__all__ = [
    "BadPictureError",
    "BgaMnerPipeline",
    "BgaMnerProcessor",
    "CardKeepingTrainer",
    "ConllReport",
    "DataCollatorForMner",
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
    "load_image_processor",
    "load_picture",
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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {shown(name)}")
