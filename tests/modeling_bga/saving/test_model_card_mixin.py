"""Cards of models that are saved, pushed and trained further; the Hub is a small server on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch
from huggingface_hub import ModelCard, constants
from transformers import TrainingArguments
from transformers.utils import hub as transformers_hub

from bga_mner import (
    BgaMnerForSequenceClassification,
    BgaMnerForTokenClassification,
    BgaMnerModel,
    CardKeepingTrainer,
    lora_config,
)
from bga_mner.modeling_bga.saving import model_card_mixin


SUMMARY = {"name": "tweets", "scores": {"test": {"f1": 0.8125, "precision": 0.75, "recall": 0.875}}}
REPOSITORY = "someone/new"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Serve one repository that takes pushes; return its files, by name."""
    files: dict[str, bytes] = {}

    class Repository(BaseHTTPRequestHandler):
        def do_HEAD(self):
            name = self.path.rpartition("/")[2]
            if name in files:
                digest = hashlib.sha1(files[name]).hexdigest()
                self.answer(files[name], **{"ETag": f'"{digest}"', "X-Repo-Commit": digest})
            else:
                self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})

        do_GET = do_HEAD  # noqa: N815 - the name that http.server calls

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "/preupload/" in self.path:
                asked = json.loads(body)["files"]
                found = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in asked]
                self.answer({"files": found})
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                self.answer({"commitUrl": f"{address}/{REPOSITORY}/commit/1", "commitOid": "1"})
            else:  # a repository is made, or a card looked at
                self.answer({"url": f"{address}/{REPOSITORY}", "errors": [], "warnings": []})

        def answer(self, content, status=200, **headers):
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Repository)
    address = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers_hub, "_hf_api", None)
    monkeypatch.setenv("HF_TOKEN", "hf_of_this_machine")
    yield files
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(make_model):
    model = make_model()
    model.config.training_summary = SUMMARY
    return model


def card_of(files) -> ModelCard:
    return ModelCard(files["README.md"].decode())


def f1_of(card: ModelCard) -> float:
    (result,) = [result for result in card.data.eval_results or [] if result.metric_type == "f1"]
    return result.metric_value


def test_saving_writes_the_card_in_the_main_process_only(model, tmp_path):
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other" / "README.md").exists()
    model.save_pretrained(tmp_path / "main")
    assert f1_of(ModelCard.load(tmp_path / "main" / "README.md")) == 0.8125


def test_pushing_brings_the_card(model, hub):
    model.push_to_hub(REPOSITORY, tags=["mine"])
    assert "model.safetensors" in hub
    card = card_of(hub)
    assert f1_of(card) == 0.8125
    assert f'from_pretrained("{REPOSITORY}")' in card.text
    assert "[More Information Needed]" not in card.text
    assert card.data.tags[-1] == "mine"


def test_pushing_again_replaces_our_card_and_not_one_that_was_edited(model, hub):
    model.push_to_hub(REPOSITORY, tags=["mine"])
    model.config.training_summary = {"name": "tweets", "scores": {"test": {"f1": 0.875}}}
    model.push_to_hub(REPOSITORY)
    assert f1_of(card_of(hub)) == 0.875
    assert card_of(hub).data.tags[-1] == "mine"
    hub["README.md"] = hub["README.md"].replace(b"## Limits", b"## Limits\n\n- Mine.")
    model.config.training_summary = {"name": "tweets", "scores": {"test": {"f1": 0.9375}}}
    model.push_to_hub(REPOSITORY)
    assert "- Mine." in card_of(hub).text
    assert f1_of(card_of(hub)) == 0.875


def test_saving_and_pushing_at_once(model, hub, tmp_path):
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=REPOSITORY)
    assert f1_of(card_of(hub)) == 0.8125
    assert (tmp_path / "README.md").read_bytes() == hub["README.md"]


def test_a_card_edited_in_the_folder_is_what_is_pushed(model, hub, tmp_path):
    model.save_pretrained(tmp_path)
    edited = (tmp_path / "README.md").read_text(encoding="utf-8") + "\nMine.\n"
    (tmp_path / "README.md").write_text(edited, encoding="utf-8")
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=REPOSITORY)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == edited
    assert hub["README.md"].decode() == edited


def test_the_empty_card_that_a_person_began_to_fill_is_kept(model, hub, tmp_path):
    card = transformers_hub.create_and_tag_model_card(REPOSITORY)
    card.save(tmp_path / "README.md")
    model.save_pretrained(tmp_path)
    assert f1_of(ModelCard.load(tmp_path / "README.md")) == 0.8125
    card.text = card.text.replace("[More Information Needed]", "By me.", 1)
    card.save(tmp_path / "README.md")
    model.save_pretrained(tmp_path)
    assert "By me." in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("how", ["push_to_hub", "save_model"])
def test_a_trainer_s_push_keeps_the_card(model, hub, tmp_path, how):
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"), push_to_hub=True, hub_model_id=REPOSITORY, use_cpu=True, report_to="none"
    )
    trainer = CardKeepingTrainer(model=model, args=arguments)
    getattr(trainer, how)()
    card = card_of(hub)
    assert f1_of(card) == 0.8125
    assert "generated_from_trainer" not in card.data.tags
    assert f'from_pretrained("{REPOSITORY}")' in card.text


def step(model, make_batch, optimizer=None):
    """Train for a step, as a plain loop does."""
    model.train()
    optimizer = optimizer or torch.optim.AdamW(filter(lambda weight: weight.requires_grad, model.parameters()), lr=1e-5)
    model(**make_batch()).loss.backward()
    optimizer.step()


def test_training_further_makes_the_record_outdated(model, make_batch, tmp_path):
    model.eval()
    step(model, make_batch)
    model.eval()
    assert model.config.training_summary == {**SUMMARY, "outdated": True}
    model.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert not card.data.eval_results
    assert "trained further" in card.text
    assert "# tweets" in card.text
    # measured anew
    model.config.training_summary = SUMMARY
    model.save_pretrained(tmp_path)
    assert f1_of(ModelCard.load(tmp_path / "README.md")) == 0.8125


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_changes_no_weight_leaves_the_record_as_it_is(model, make_batch, tmp_path, dtype):
    model.save_pretrained(tmp_path)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    assert not loaded.train().eval().to(dtype).train()(**make_batch()).loss.isnan()
    loaded.eval().load_state_dict(model.state_dict())
    loaded.zero_grad()
    loaded.save_pretrained(tmp_path)
    assert loaded.config.training_summary == SUMMARY
    assert f1_of(ModelCard.load(tmp_path / "README.md")) == 0.8125


class WritesData(torch.optim.Optimizer):
    """An optimizer that writes past autograd, as fused and 8-bit ones do."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data.sub_(1e-4 * parameter.grad.sign())


def _frozen(model, make_batch):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("crf."))
    step(model, make_batch)


def _loaded(model, make_batch):
    model.load_state_dict({name: tensor + 0.01 for name, tensor in model.state_dict().items()})


def _adapted(model, make_batch):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, lora_config(model, 2, ("text",)))
    adapted.train()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    adapted.eval()
    adapted.merge_and_unload()


CHANGES = {
    "a step": step,
    "a step past autograd": lambda model, make_batch: step(model, make_batch, WritesData(model.parameters())),
    "a step of the CRF alone": _frozen,
    "other weights": _loaded,
    "adapters": _adapted,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_weights_makes_the_record_outdated(model, make_batch, tmp_path, change):
    model.save_pretrained(tmp_path)
    loaded = BgaMnerForTokenClassification.from_pretrained(tmp_path)
    CHANGES[change](loaded, make_batch)
    loaded.save_pretrained(tmp_path)
    assert loaded.config.training_summary["outdated"]
    assert not ModelCard.load(tmp_path / "README.md").data.eval_results


def test_a_record_that_is_changed_in_place_tells_of_the_weights_of_now(model, make_batch, tmp_path):
    model.config.training_summary = {**SUMMARY}
    step(model, make_batch)
    model.config.training_summary["scores"] = {"test": {"f1": 0.9375}}
    model.eval().save_pretrained(tmp_path)
    assert f1_of(ModelCard.load(tmp_path / "README.md")) == 0.9375


def test_a_model_without_a_record_trains_as_ever(make_model):
    model = make_model()
    assert model.train().training
    assert model.config.training_summary is None
    assert not model.train(False).training


MODELS = (BgaMnerModel, BgaMnerForTokenClassification, BgaMnerForSequenceClassification)


@pytest.mark.parametrize("model_class", MODELS)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("labels", [None, torch.tensor([0, 2, 1]), torch.tensor([[0.0, 1, 1, 0, 1]] * 3)])
def test_forward_leaves_the_configuration_as_it_is(make_config, make_batch, model_class, training, labels):
    model = model_class(make_config(training_summary=SUMMARY)).train(training)
    before = model.config.to_dict()
    batch = make_batch()
    if model_class is not BgaMnerForTokenClassification:
        batch["labels"] = labels
    if model_class is BgaMnerModel:
        del batch["labels"]
    output = model(**{name: value for name, value in batch.items() if value is not None})
    assert model.config.to_dict() == before
    if training and output.get("loss") is not None:
        output.loss.backward()
        assert model.config.to_dict() == before


def test_where_the_package_is_missing_the_card_that_is_there_stays(model, hub, tmp_path, monkeypatch):
    model.save_pretrained(tmp_path)
    written = (tmp_path / "README.md").read_text(encoding="utf-8")
    # a saved model's code doesn't carry this
    monkeypatch.setitem(sys.modules, "bga_mner.configuration.hub.model_card", None)
    told: list[str] = []
    monkeypatch.setattr(model_card_mixin.logger, "warning", lambda message, *values: told.append(message % values))
    model.config.training_summary = {"scores": {"test": {"f1": 0.25}}}
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new" / "README.md").exists()
    assert not told
    model.config.training_summary |= {"outdated": True}
    model.save_pretrained(tmp_path)
    assert [message.split(" in ")[0] for message in told] == ["The model card"]
    model.save_pretrained(tmp_path, push_to_hub=True, repo_id=REPOSITORY)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == written == hub["README.md"].decode()
