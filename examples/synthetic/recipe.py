"""The recipe that is trained on generated corpora: tiny encoders, a short training of each, and their scores."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import positive

import torch
from datasets import Dataset
from PIL import Image
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerPreTrainedModel,
    BgaMnerProcessor,
    DataCollatorForMner,
    LossPartsCallback,
    build_compute_metrics,
)
from bga_mner.examples.synthetic.corpus import GeneratedCorpus, generate_corpus
from bga_mner.examples.synthetic.drawings import ENTITY_TYPES, concept_images
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


IMAGE_SIZE = 64
LONGEST_TEXT = 64  # in tokens


class ConceptClassifier(nn.Module):
    """A vision encoder and a linear head on the mean of its patches, so that each patch learns what it is part of."""

    def __init__(self, encoder: PreTrainedModel, width: int, concepts: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, concepts)

    def patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the states of images' patches (batch, patches, width): those after the class token."""
        return self.encoder(pixel_values=pixel_values).last_hidden_state[:, 1:]

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify images (batch, 3, side, side); return loss and logits (batch, concepts)."""
        logits = self.head(self.patches(pixel_values).mean(dim=1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def training_arguments(
    output_dir: Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    quiet: bool | None = None,
    use_cpu: bool = True,
    bf16: bool = False,
) -> TrainingArguments:
    """Arguments that both trainings share."""
    return TrainingArguments(
        bf16=bf16,
        output_dir=str(output_dir / "checkpoints"),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=64,
        learning_rate=learning_rate,
        warmup_steps=min(50, steps // 4),
        weight_decay=0.01,
        logging_steps=max(1, steps // 4),
        save_strategy="no",
        report_to="none",
        seed=seed,
        use_cpu=use_cpu,
        # raw columns are encoded on the fly
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=quiet,
    )


def accuracy(result: EvalPrediction) -> dict[str, float]:
    """Compute the accuracy of scores of classes."""
    return {"accuracy": (result.predictions.argmax(-1) == result.label_ids).mean()}


def teach_concepts(
    classifier: ConceptClassifier,
    image_processor: Any,
    train_images: tuple[list[Image.Image], list[int]],
    test_images: tuple[list[Image.Image], list[int]],
    arguments: TrainingArguments,
) -> float:
    """Train a classifier on images with their concepts' numbers; return its accuracy on others."""

    def encoded(images: list[Image.Image], labels: list[int]) -> list[dict[str, Any]]:
        pixels = image_processor(images, return_tensors="pt")["pixel_values"]
        return [{"pixel_values": image, "labels": label} for image, label in zip(pixels, labels, strict=True)]

    trainer = Trainer(
        model=classifier,
        args=arguments,
        train_dataset=encoded(*train_images),
        compute_metrics=accuracy,
    )
    trainer.train()
    return float(trainer.evaluate(encoded(*test_images))["eval_accuracy"])


def pretrain_vision_encoder(
    image_processor: Any,
    train_images: tuple[list[Image.Image], list[int]],
    test_images: tuple[list[Image.Image], list[int]],
    arguments: TrainingArguments,
    **config: Any,
) -> tuple[ViTModel, float]:
    """Teach a tiny vision encoder the visual concepts, as a stand-in for CLIP; return it and its held-out accuracy.

    Images come with their concepts' numbers; `config` is for the encoder.
    """
    defaults: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    defaults |= {"image_size": IMAGE_SIZE, "patch_size": 8, "num_labels": len(ENTITY_TYPES)}
    defaults |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vit_config = ViTConfig(**(defaults | config))
    encoder = ViTModel(vit_config, add_pooling_layer=False)
    classifier = ConceptClassifier(encoder, vit_config.hidden_size, vit_config.num_labels)
    return encoder, teach_concepts(classifier, image_processor, train_images, test_images, arguments)


def pretrain_on_drawings(
    image_processor: Any, drawings: int, kinds: Sequence[str], seed: int, arguments: TrainingArguments
) -> tuple[ViTModel, float]:
    """Teach a tiny vision encoder to tell drawings of these kinds apart; return it and its held-out accuracy."""
    return pretrain_vision_encoder(
        image_processor,
        concept_images(drawings, seed, IMAGE_SIZE, kinds=kinds),
        concept_images(max(8, drawings // 20), seed + 1000, IMAGE_SIZE, kinds=kinds),
        arguments,
        num_labels=len(kinds),
    )


def add_options(parser: argparse.ArgumentParser, test_sentences: int = 400) -> None:
    """Add the sizes of the corpus and of the trainings, which `prepare` and `train` are given."""
    parser.add_argument("--steps", type=positive, default=450, help="training steps per model")
    parser.add_argument("--vision_steps", type=positive, default=700, help="training steps of the vision encoder")
    parser.add_argument(
        "--images", type=positive, default=8000, help="number of drawings to train the vision encoder on"
    )
    parser.add_argument("--pairs", type=positive, default=2400, help="number of training pairs, half of them labelled")
    parser.add_argument(
        "--test_sentences",
        type=positive,
        default=test_sentences,
        help="number of test sentences with labelled names, and with never-labelled names",
    )


def prepare(
    options: argparse.Namespace, output_dir: Path, **corpus_options: Any
) -> tuple[GeneratedCorpus, BgaMnerProcessor, ViTModel, float]:
    """Generate the corpus, and make what reads it: a processor, and a vision encoder that knows the drawings.

    Of `options` seed, pairs, test_sentences, images and vision_steps are read; `corpus_options` are further ones of
    `generate_corpus`. The last item is the vision encoder's accuracy on new drawings.
    """
    corpus = generate_corpus(
        seed=options.seed,
        train_labelled=options.pairs // 2,
        train_unlabelled=options.pairs // 2,
        test_sentences=options.test_sentences,
        image_size=IMAGE_SIZE,
        **corpus_options,
    )
    image_processor = ViTImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    label2id = {label: number for number, label in enumerate(corpus.labels)}
    processor = BgaMnerProcessor(image_processor, build_tokenizer(corpus.sentences(), LONGEST_TEXT), label2id=label2id)
    arguments = training_arguments(output_dir, options.vision_steps, 64, 3e-3, options.seed)
    vision, score = pretrain_on_drawings(image_processor, options.images, ENTITY_TYPES, options.seed, arguments)
    return corpus, processor, vision, score


def encode_once(processor: BgaMnerProcessor, dataset: Dataset) -> list[dict[str, Any]]:
    """Encode what several trainings read."""
    columns = processor.encode_examples(dataset[:])
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


# Half of the labelled pairs teach what type of entity an image shows, and a text encoder without pretraining has
# nothing to protect from generated features.
RECIPE = {"entity_replacement_probability": 0.5, "gate_initial_bias": 0.0}
# Without images nothing learns to generate what the text could read. Entities are replaced as with images.
TEXT_ALONE = {"visual_source": "none"}


def build_model(
    tokenizer: PreTrainedTokenizerBase,
    vision: PreTrainedModel,
    labels: list[str],
    text_layers: int = 2,
    model_class: type[BgaMnerPreTrainedModel] = BgaMnerForTokenClassification,
    **options: Any,
) -> Any:
    """Join a tiny text encoder and the vision encoder; alignment and head (here tags and CRF) are new."""
    text_config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=text_layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=LONGEST_TEXT,
    )
    model = model_class.from_text_vision_pretrained(
        BertModel(text_config, add_pooling_layer=False), vision, labels=labels, **(RECIPE | options)
    )
    # What the images' features mean was learned before, and is to stay.
    model.freeze_vision_encoder(new_layers=True)
    return model


def train(
    model: Any,
    processor: Any,
    rows: Dataset | list[dict[str, Any]],
    steps: int,
    output_dir: Path,
    seed: int,
    batch_size: int = 32,
    learning_rate: float = 2e-3,
    quiet: bool | None = None,
    **precision: bool,
) -> Trainer:
    """Train on a dataset, or on rows of `encode_once`, with the stock Trainer; `use_cpu` and `bf16` are its own."""
    tags = isinstance(model, BgaMnerForTokenClassification)
    trainer = Trainer(
        model=model,
        args=training_arguments(output_dir, steps, batch_size, learning_rate, seed, quiet, **precision),
        train_dataset=rows.with_transform(processor.encode_examples) if isinstance(rows, Dataset) else rows,
        data_collator=DataCollatorForMner(processor),
        compute_metrics=build_compute_metrics(model.config.id2label) if tags else accuracy,
        callbacks=[LossPartsCallback()],
    )
    trainer.train()
    return trainer


def evaluate(trainer: Trainer, processor: Any, dataset: Dataset) -> dict[str, float]:
    """Score a test set, whose sentences have no images; return all of the Trainer's metrics."""
    return trainer.evaluate(dataset.with_transform(processor.encode_examples))
