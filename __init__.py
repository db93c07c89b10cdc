"""Multimodal named entity recognition with bidirectional generative alignment, the Hugging Face way.

Importing this package registers its classes with transformers' Auto classes and pipelines.
"""

import lazy_loader
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration.configuration_bga_mner import BgaMnerConfig
from .modeling_bga.modeling_bga_mner import BgaMnerModel
from .modeling_bga.sequence_classifier import BgaMnerForSequenceClassification
from .modeling_bga.token_classifier import BgaMnerForTokenClassification
from .processing.pipeline_bga_mner import BgaMnerPipeline
from .processing.processing_bga_mner import BgaMnerProcessor


__version__ = "0.1.0"

# The public names stand in __init__.pyi. A module is imported when a name of it is first asked for.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

AutoConfig.register(BgaMnerConfig.model_type, BgaMnerConfig)
AutoModel.register(BgaMnerConfig, BgaMnerModel)
AutoModelForSequenceClassification.register(BgaMnerConfig, BgaMnerForSequenceClassification)
AutoModelForTokenClassification.register(BgaMnerConfig, BgaMnerForTokenClassification)
AutoProcessor.register(BgaMnerConfig, BgaMnerProcessor)
PIPELINE_REGISTRY.register_pipeline("multimodal-ner", BgaMnerPipeline, pt_model=AutoModelForTokenClassification)
