"""Files to learn from, tiny encoders, and runs of the example scripts in processes that can be killed."""

from __future__ import annotations

import json
import multiprocessing
import runpy
import socket
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
import torch
from transformers import (
    AutoTokenizer,
    BaseImageProcessor,
    BertConfig,
    BertModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from bga_mner import (
    BgaMnerForTokenClassification,
    BgaMnerProcessor,
    DataCollatorForMner,
    read_conll,
    write_conll,
)
from bga_mner.examples.synthetic.corpus import LABELS, GeneratedCorpus, generate_corpus
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = {"trainer": EXAMPLES / "run_mner.py", "loop": EXAMPLES / "run_mner_no_trainer.py"}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the seconds for which datasets waits after each stream of Parquet."""
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest) -> ModuleType:
    """Import the script that stands in examples/ under the name that the file of tests has after "test_"."""
    return import_module(f"bga_mner.examples.{request.path.stem.removeprefix('test_')}")


@pytest.fixture(scope="session")
def mner_corpus() -> GeneratedCorpus:
    """Generate 24 sentences to train on and 8 to score."""
    return generate_corpus(
        names_per_type=4,
        train_labelled=20,
        train_unlabelled=4,
        test_sentences=6,
        validation_sentences=8,
        image_size=16,
    )


@pytest.fixture(scope="session")
def write_mner_files(
    mner_corpus: GeneratedCorpus, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int, BaseImageProcessor], Path]:
    """Return a function that writes CoNLL files, their images, and two encoders, of which one has that image size."""

    def write(image_size: int, image_processor: BaseImageProcessor) -> Path:
        folder, corpus = tmp_path_factory.mktemp("mner"), mner_corpus
        (folder / "images").mkdir()
        parts = {"train": corpus.train, "valid": corpus.validation, "test": corpus.test_unseen_labels}
        for name, part in parts.items():
            write_conll(folder / f"{name}.txt", part["tokens"], part["ner_tags"], part["id"])
            for row in part:
                if row["image"] is not None:
                    (folder / "images" / f"{row['id']}.png").write_bytes(row["image"]["bytes"])
        tokenizer = build_tokenizer(corpus.sentences(), model_max_length=64)
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **TINY)
        BertModel(config).save_pretrained(folder / "bert")
        tokenizer.save_pretrained(folder / "bert")
        ViTModel(ViTConfig(image_size=image_size, patch_size=8, **TINY)).save_pretrained(folder / "vit")
        image_processor.save_pretrained(folder / "vit")
        return folder

    return write


@pytest.fixture(scope="session")
def mner_files(write_mner_files: Callable[[int, BaseImageProcessor], Path]) -> Path:
    """Write files to learn from, all images of which are there."""
    return write_mner_files(16, ViTImageProcessorPil(size={"height": 16, "width": 16}))


@pytest.fixture(scope="session")
def learned(mner_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model that knows half of the validation sentences by heart, so that its scores are neither 0 nor 1."""
    torch.manual_seed(0)
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(
        mner_files / "bert", mner_files / "vit", labels=LABELS, num_bga_layers=1
    )
    tokenizer = AutoTokenizer.from_pretrained(mner_files / "bert")
    image_processor = ViTImageProcessorPil.from_pretrained(mner_files / "vit")
    processor = BgaMnerProcessor(image_processor, tokenizer, label2id=model.config.label2id)
    rows = read_conll(mner_files / "valid.txt").remove_columns("image").with_transform(processor.encode_examples)
    batch = DataCollatorForMner(processor)([rows[number] for number in range(0, len(rows), 2)])
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
    for _ in range(100):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("learned")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def text_model_dir(make_model: Callable[..., Any], tmp_path: Path) -> Path:
    """Save a tiny tagger without a generator, which is exported the fastest, and its processor without images."""
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    model = make_model(use_text_to_image=False, text_options={"vocab_size": len(tokenizer)})
    model.save_pretrained(tmp_path / "model")
    BgaMnerProcessor(None, tokenizer, label2id=model.config.label2id).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module", params=list(SCRIPTS))
def kind(request: pytest.FixtureRequest) -> str:
    """Name one of the fine-tuning scripts."""
    return request.param


@pytest.fixture(scope="session")
def mner_arguments(mner_files: Path) -> dict[str, Any]:
    """Return what both scripts take, with all the noise there is: dropout, samplers, replaced entities, order."""
    return {
        "train_file": mner_files / "train.txt",
        "validation_file": mner_files / "valid.txt",
        "image_dir": mner_files / "images",
        "text_model": mner_files / "bert",
        "vision_model": mner_files / "vit",
        "num_bga_layers": 1,
        "entity_replacement_probability": 0.5,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "do_train": True,
        "use_cpu": True,
        "disable_tqdm": True,
    }


class ScriptRuns:
    """Runs of a fine-tuning script in processes that are forked from one with the slow imports done."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["bga_mner", "datasets", "transformers.trainer", "seqeval.metrics"])
        self._program = str(Path(__file__).parents[1] / "script_run.py")

    @staticmethod
    def argv(arguments: dict[str, Any]) -> list[str]:
        """Return a command line."""
        pairs = [(f"--{name}", str(value)) for name, value in arguments.items() if value is not None]
        return [word for pair in pairs for word in pair]

    def start(
        self,
        kind: str,
        arguments: dict[str, Any],
        log: Path,
        kill: tuple[str, str | None, int] | None = None,
        environment: dict[str, str] | None = None,
    ) -> Any:
        names = {"SCRIPT": str(SCRIPTS[kind]), "ARGUMENTS": self.argv(arguments), "LOG": str(log), "KILL": kill}
        names["ENVIRONMENT"] = {"TOKENIZERS_PARALLELISM": "false"} | (environment or {})
        process = self._context.Process(target=runpy.run_path, args=(self._program, names))
        process.start()
        return process

    def __call__(
        self, kind: str, arguments: dict[str, Any], kill: tuple[str, str | None, int] | None = None
    ) -> tuple[int, str]:
        """Run, perhaps to be killed (see script_run.py); return exit code and output."""
        log = Path(f"{arguments['output_dir']}.log")
        process = self.start(kind, arguments, log, kill)
        process.join()
        return process.exitcode, log.read_text(encoding="utf-8", errors="replace")

    def several(
        self, kind: str, arguments: dict[str, Any], kills: dict[int, Any] | None = None, **environment: str
    ) -> tuple[list[int], list[str], list[dict[str, Any]]]:
        """Run in two processes, as torchrun would; return their exit codes, outputs and reports."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        logs = [Path(f"{arguments['output_dir']}.{rank}.log") for rank in range(2)]
        processes = [
            self.start(
                kind,
                arguments,
                log,
                (kills or {}).get(rank),
                {**common, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank, log in enumerate(logs)
        ]
        for process in processes:
            process.join()
        texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
        reports = [json.loads(Path(f"{log}.json").read_text()) for log in logs if Path(f"{log}.json").exists()]
        return [process.exitcode for process in processes], texts, reports


@pytest.fixture(scope="session")
def run_script() -> ScriptRuns:
    """Return what runs a script in processes of its own."""
    return ScriptRuns()
