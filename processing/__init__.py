"""Raw text and pictures to tensors, and back to entities."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .data_collator import DataCollatorForMner
from .pictures import BadPictureError, load_picture
from .prediction import predict
from .processing_bga_mner import BgaMnerProcessor
from .tag_scheme import labels_from_tags, repair_bio, spans_from_tags
from .word_splitting import split_words


if TYPE_CHECKING:
    from .alignment_measures import alignment_report
    from .conll import ConllReport, read_conll, write_conll
    from .mner_metric import MnerMetric, build_compute_metrics, score_tags

# These pull in datasets, evaluate and scikit-learn, for which inference has no use: imported when first asked for.
_LAZY = {
    "alignment_report": "alignment_measures",
    "ConllReport": "conll",
    "read_conll": "conll",
    "write_conll": "conll",
    "MnerMetric": "mner_metric",
    "build_compute_metrics": "mner_metric",
    "score_tags": "mner_metric",
}

__all__ = [
    "BadPictureError",
    "BgaMnerProcessor",
    "ConllReport",
    "DataCollatorForMner",
    "MnerMetric",
    "alignment_report",
    "build_compute_metrics",
    "labels_from_tags",
    "load_picture",
    "predict",
    "read_conll",
    "repair_bio",
    "score_tags",
    "spans_from_tags",
    "split_words",
    "write_conll",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
