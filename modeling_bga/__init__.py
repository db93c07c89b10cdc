"""The model: CRF, context sampler, cross-modal generator, hybrid attention, and the PreTrainedModel classes."""

from .collapse_alarm import CollapseAlarmCallback
from .crf import ConditionalRandomField, bio_constraints
from .lora import lora_config
from .modeling_bga_mner import BgaMnerModel
from .outputs import BgaMnerModelOutput, BgaMnerSequenceClassifierOutput, BgaMnerTokenClassifierOutput
from .parameter_groups import layerwise_parameter_groups
from .pretrained_model import BgaMnerPreTrainedModel
from .sequence_classifier import BgaMnerForSequenceClassification
from .token_classifier import BgaMnerForTokenClassification
from .training_callbacks import LossPartsCallback


__all__ = [
    "BgaMnerForSequenceClassification",
    "BgaMnerForTokenClassification",
    "BgaMnerModel",
    "BgaMnerModelOutput",
    "BgaMnerPreTrainedModel",
    "BgaMnerSequenceClassifierOutput",
    "BgaMnerTokenClassifierOutput",
    "CollapseAlarmCallback",
    "ConditionalRandomField",
    "LossPartsCallback",
    "bio_constraints",
    "layerwise_parameter_groups",
    "lora_config",
]
