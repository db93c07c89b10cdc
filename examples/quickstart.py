"""Learn from pairs, annotate plain text: the whole of bga-mner in a few minutes on two CPU cores.

A corpus is generated: sentences with an invented name whose type the words don't tell, each with a drawn picture of
its type. Half of the names are never labelled: they only occur in pairs whose tags are hidden. The model trains on
pairs, is saved and loaded again, and tags sentences *without* pictures. What it knows of the never-labelled names, it
learned by generating pictures' features from them.

    python examples/quickstart.py [--output_dir outputs/quickstart]
"""

from __future__ import annotations

import argparse
import json
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from command_line import Parser, check_output, natural, positive, run_main
from datasets import Dataset
from PIL import Image
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
    set_seed,
)
from transformers.utils import logging

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerPreTrainedModel,
    BgaMnerProcessor,
    DataCollatorForMner,
    LossPartsCallback,
    build_compute_metrics,
    predict,
    summarize_training,
)
from bga_mner.processing.alignment import align
from bga_mner.processing.alignment_picture import draw_alignment
from bga_mner.processing.concept_drawings import ENTITY_TYPES, concept_pictures
from bga_mner.processing.generated_corpus import GeneratedCorpus, generate_corpus
from bga_mner.processing.word_tokenizer import build_tokenizer


PICTURE_SIZE = 64
LONGEST_TEXT = 64  # in tokens
COLOURS = {"LOC": "green", "MISC": "magenta", "ORG": "cyan", "PER": "yellow"}


class ConceptClassifier(nn.Module):
    """A vision encoder and a linear head on the mean of its patches, so that each patch learns what it is part of.

    Parameters
    ----------
    encoder : PreTrainedModel
        The encoder.
    width : int
        Of its patches' states.
    concepts : int
        How many there are to tell apart.
    """

    def __init__(self, encoder: PreTrainedModel, width: int, concepts: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(width, concepts)

    def patches(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the states of pictures' patches (batch, patches, width): those behind the class token."""
        return self.encoder(pixel_values=pixel_values).last_hidden_state[:, 1:]

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Classify pictures (batch, 3, side, side); return loss and logits (batch, concepts)."""
        logits = self.head(self.patches(pixel_values).mean(dim=1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def training_arguments(
    output_dir: Path, steps: int, batch_size: int, learning_rate: float, seed: int
) -> TrainingArguments:
    """Arguments that both trainings share."""
    return TrainingArguments(
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
        use_cpu=True,
        # raw columns are encoded on the fly
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def teach_concepts(
    classifier: ConceptClassifier,
    image_processor: Any,
    train_pictures: tuple[list[Image.Image], list[int]],
    test_pictures: tuple[list[Image.Image], list[int]],
    arguments: TrainingArguments,
) -> float:
    """Train a classifier on pictures with their concepts' numbers; return its accuracy on others."""

    def encoded(images: list[Image.Image], labels: list[int]) -> list[dict[str, Any]]:
        pixels = image_processor(images, return_tensors="pt")["pixel_values"]
        return [{"pixel_values": picture, "labels": label} for picture, label in zip(pixels, labels, strict=True)]

    trainer = Trainer(
        model=classifier,
        args=arguments,
        train_dataset=encoded(*train_pictures),
        compute_metrics=lambda result: {"accuracy": (result.predictions.argmax(-1) == result.label_ids).mean()},
    )
    trainer.train()
    return float(trainer.evaluate(encoded(*test_pictures))["eval_accuracy"])


def pretrain_vision_encoder(
    image_processor: Any,
    train_pictures: tuple[list[Image.Image], list[int]],
    test_pictures: tuple[list[Image.Image], list[int]],
    arguments: TrainingArguments,
    **config: Any,
) -> tuple[ViTModel, float]:
    """Teach a tiny vision encoder the visual concepts, as a stand-in for CLIP; return it and its held-out accuracy.

    Pictures come with their concepts' numbers; `config` is for the encoder.
    """
    defaults = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    defaults |= {"image_size": PICTURE_SIZE, "patch_size": 8, "num_labels": len(ENTITY_TYPES)}
    defaults |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    vit_config = ViTConfig(**(defaults | config))
    encoder = ViTModel(vit_config, add_pooling_layer=False)
    classifier = ConceptClassifier(encoder, vit_config.hidden_size, vit_config.num_labels)
    return encoder, teach_concepts(classifier, image_processor, train_pictures, test_pictures, arguments)


def prepare(
    options: argparse.Namespace, output_dir: Path, **corpus_options: Any
) -> tuple[GeneratedCorpus, BgaMnerProcessor, ViTModel, float]:
    """Generate the corpus, and make what reads it: a processor, and a vision encoder that knows the drawings.

    Of `options` seed, pairs, test_sentences, pictures and vision_steps are read; `corpus_options` are further ones of
    `generate_corpus`. The last item is the vision encoder's accuracy on new drawings.
    """
    corpus = generate_corpus(
        seed=options.seed,
        train_labelled=options.pairs // 2,
        train_unlabelled=options.pairs // 2,
        test_sentences=options.test_sentences,
        picture_size=PICTURE_SIZE,
        **corpus_options,
    )
    image_processor = ViTImageProcessorPil(size={"height": PICTURE_SIZE, "width": PICTURE_SIZE})
    label2id = {label: number for number, label in enumerate(corpus.labels)}
    processor = BgaMnerProcessor(image_processor, build_tokenizer(corpus.sentences(), LONGEST_TEXT), label2id=label2id)
    vision, accuracy = pretrain_vision_encoder(
        image_processor,
        concept_pictures(options.pictures, options.seed, PICTURE_SIZE),
        concept_pictures(max(8, options.pictures // 20), options.seed + 1000, PICTURE_SIZE),
        training_arguments(output_dir, options.vision_steps, 64, 3e-3, options.seed),
    )
    return corpus, processor, vision, accuracy


# Half of the labelled pairs teach what type of entity a picture shows, and a text encoder without pretraining has
# nothing to protect from generated features.
RECIPE = {"entity_replacement_probability": 0.5, "gate_initial_bias": 0.0}


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
    # What the pictures' features mean was learned before, and is to stay.
    model.freeze_vision_encoder(new_layers=True)
    return model


def train(model: Any, processor: Any, dataset: Dataset, steps: int, output_dir: Path, seed: int) -> Trainer:
    """Train with the stock Trainer."""
    trainer = Trainer(
        model=model,
        args=training_arguments(output_dir, steps, 32, 2e-3, seed),
        train_dataset=dataset.with_transform(processor.encode_examples),
        data_collator=DataCollatorForMner(processor),
        compute_metrics=build_compute_metrics(model.config.id2label),
        callbacks=[LossPartsCallback()],
    )
    trainer.train()
    return trainer


def evaluate(trainer: Trainer, processor: Any, dataset: Dataset) -> dict[str, float]:
    """Score a test set, whose sentences have no pictures; return all of the Trainer's metrics."""
    return trainer.evaluate(dataset.with_transform(processor.encode_examples))


def coloured(words: list[str], entities: list[dict[str, Any]]) -> Text:
    """Show a sentence with its entities in colour, each with its type and probability."""
    sentence = " ".join(words)
    text, place = Text(), 0
    for entity in entities:
        text.append(sentence[place : entity["start"]])
        colour = COLOURS.get(entity["label"], "white")
        text.append(entity["word"], style=f"bold black on {colour}")
        text.append(f" {entity['label']} {entity['score']:.2f}", style=colour)
        place = entity["end"]
    text.append(sentence[place:])
    return text


def draw_examples(model: Any, processor: Any, corpus: GeneratedCorpus, path: Path) -> None:
    """Draw what the model aligned, for a pair of each type with a never-labelled name."""
    chosen = {}
    for row in corpus.train:
        if row["ner_tags"] is None:
            kinds = {kind for name, kind in corpus.unlabelled_names.items() if name in " ".join(row["tokens"])}
            # the picture shows what the name is, and not one of the mismatches
            if kinds == {row["concept"]}:
                chosen.setdefault(row["concept"], row)
    alignments = []
    for _, row in sorted(chosen.items()):
        image = Image.open(BytesIO(row["image"]["bytes"])).convert("RGB")
        alignments.append((align(model, processor, row["tokens"], image), image))
    draw_alignment(alignments, path)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Run the quickstart; return the scores that it prints."""
    parser = Parser(__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/quickstart"))
    parser.add_argument("--steps", type=positive, default=450, help="training steps on pairs")
    parser.add_argument("--vision_steps", type=positive, default=700, help="steps of the vision encoder's own training")
    parser.add_argument(
        "--pictures", type=positive, default=8000, help="drawings for the vision encoder's own training"
    )
    parser.add_argument("--pairs", type=positive, default=2400, help="training pairs, half of them labelled")
    parser.add_argument("--test_sentences", type=positive, default=400)
    parser.add_argument("--seed", type=natural, default=0)
    options = parser.parse_args(arguments)
    check_output(options.output_dir, "--output_dir")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    console = Console(width=110)
    logging.set_verbosity_error()
    set_seed(options.seed)
    start = time.perf_counter()

    console.print(Rule("1/5  A generated corpus, and a vision encoder that knows its concepts"))
    corpus, processor, vision, accuracy = prepare(options, options.output_dir)
    console.print(f"The vision encoder tells the four concepts apart on new drawings with accuracy {accuracy:.3f}.")

    console.print(Rule("2/5  Training on pairs, half of them without labels"))
    labels = list(corpus.labels)
    model = build_model(processor.tokenizer, vision, labels)
    trainer = train(model, processor, corpus.train, options.steps, options.output_dir, options.seed)

    console.print(Rule("3/5  For comparison: the same sentences and labels, without pictures"))
    set_seed(options.seed)
    text_only_model = build_model(processor.tokenizer, vision, labels)
    text_only = train(
        text_only_model,
        processor,
        corpus.train.remove_columns("image"),
        options.steps,
        options.output_dir,
        options.seed,
    )

    table = Table(title="F1 on sentences without pictures", title_justify="left")
    for column in ("trained on", "labelled names", "never-labelled names"):
        table.add_column(column)
    scores: dict[str, Any] = {"vision_accuracy": accuracy}
    metrics = {}
    for name, trained in (("text and pictures", trainer), ("text alone", text_only)):
        tests = {"labelled": corpus.test_labelled, "never_labelled": corpus.test_unseen_labels}
        metrics[name] = {names: evaluate(trained, processor, test) for names, test in tests.items()}
        scores[name] = {
            names: {score: found[f"eval_{score}"] for score in ("f1", "precision", "recall")}
            for names, found in metrics[name].items()
        }
        table.add_row(name, *(f"{found['f1']:.3f}" for found in scores[name].values()))
    console.print(table)

    console.print(Rule("4/5  Save, load again, annotate plain text"))
    folder = options.output_dir / "model"
    # what the model card, README.md, is filled with
    model.config.training_summary = summarize_training(
        trainer,
        scores={f"{names.replace('_', '-')} names": found for names, found in metrics["text and pictures"].items()},
        name="bga-mner-quickstart",
        language="en",
        widget_texts=[" ".join(corpus.test_unseen_labels["tokens"][0])],
    )
    trainer.save_model(str(folder))
    processor.save_pretrained(folder)
    loaded = BgaMnerForTokenClassification.from_pretrained(folder)
    processor = BgaMnerProcessor.from_pretrained(folder)
    sentences = corpus.test_unseen_labels["tokens"][: min(8, options.test_sentences)]
    before, after = predict(model, processor, sentences), predict(loaded, processor, sentences)
    if before != after:
        raise RuntimeError("The loaded model annotates differently from the saved one.")
    for words, entities in zip(sentences, after, strict=True):
        console.print(coloured(words, entities))
    console.print("[dim]None of these names was ever labelled; the sentences don't tell their types.[/dim]")

    console.print(Rule("5/5  What the model aligned"))
    picture = options.output_dir / "alignment.png"
    draw_examples(loaded, processor, corpus, picture)
    scores["seconds"] = time.perf_counter() - start
    scores["model_parameters"] = sum(parameter.numel() for parameter in loaded.parameters())
    (options.output_dir / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
    console.print(
        f"Model, processor and model card: {folder}\nPicture of kept patches and matches: {picture}\n"
        f"Scores: {options.output_dir / 'scores.json'}\n{scores['seconds']:.0f} s in all."
    )
    return scores


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    run_main(main)
