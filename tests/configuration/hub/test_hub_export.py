"""What is saved carries the code, and names on the Hub are told from folders."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    AutoProcessor,
    ViTImageProcessorPil,
    pipeline,
)

import bga_mner
from bga_mner import BgaMnerConfig, BgaMnerForTokenClassification
from bga_mner.configuration.hub.entry_points import AUTO_MAP, CODE_FILES, CUSTOM_PIPELINES
from bga_mner.configuration.hub.hub_names import came_from_hub, marked_folder
from bga_mner.configuration.hub.remote_code import code_files
from bga_mner.examples.synthetic.tokenizer import build_tokenizer


@pytest.fixture
def processor(make_config):
    tokenizer = build_tokenizer([["Kawhi", "wins"]])
    image_processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    return bga_mner.BgaMnerProcessor(image_processor, tokenizer, label2id=make_config().label2id)


def python_files(folder):
    return {path.name for path in folder.glob("*.py")}


def test_configuration_model_and_processor_each_carry_all_code(make_config, make_model, processor, tmp_path):
    for number, saved in enumerate((make_config(), make_model(), make_model().bga_mner, processor)):
        saved.save_pretrained(tmp_path / str(number))
        assert python_files(tmp_path / str(number)) == set(CODE_FILES)
        name = "processor_config.json" if saved is processor else "config.json"
        assert json.loads((tmp_path / str(number) / name).read_text())["auto_map"] == AUTO_MAP
    assert json.loads((tmp_path / "0" / "config.json").read_text())["custom_pipelines"] == CUSTOM_PIPELINES


def test_what_is_changed_in_a_saved_dict_is_nobody_elses(make_config, processor):
    for saved in (make_config().to_diff_dict(), processor.to_dict()):
        saved["auto_map"].clear()
    make_config().to_diff_dict()["custom_pipelines"]["multimodal-ner"].clear()
    assert len(AUTO_MAP) == 5
    assert CUSTOM_PIPELINES["multimodal-ner"]


def test_files_of_the_users_stay_and_old_code_is_left_to_them(make_model, processor, tmp_path):
    # release 0.1.0 laid 56 files into a folder, each of a module
    model = make_model()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    old = {"crf.py": "OLD = 1\n", "my_script.py": "MINE = 1\n"}
    for name, text in {**old, "modeling_bga_mner.py": "OLD = 1\n"}.items():
        (tmp_path / name).write_text(text)
    for name in ("config.json", "processor_config.json"):
        values = json.loads((tmp_path / name).read_text())
        values["auto_map"]["AutoModelForTokenClassification"] = "token_classifier.BgaMnerForTokenClassification"
        (tmp_path / name).write_text(json.dumps(values))
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    loaded.save_pretrained(tmp_path)
    AutoProcessor.from_pretrained(tmp_path).save_pretrained(tmp_path)
    assert python_files(tmp_path) == {*CODE_FILES, *old}
    for name, text in {**old, **code_files()}.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text
    for name in ("config.json", "processor_config.json"):
        assert json.loads((tmp_path / name).read_text())["auto_map"] == AUTO_MAP


def test_installed_classes_load_what_is_saved_and_nothing_is_asked(make_model, processor, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    # code that must not be run
    for path in tmp_path.glob("*.py"):
        path.write_text("raise AssertionError('this was run')\n")
    for options in ({}, {"trust_remote_code": False}, {"trust_remote_code": True}):
        for auto_class, expected in (
            (AutoConfig, bga_mner.BgaMnerConfig),
            (AutoModel, bga_mner.BgaMnerModel),
            (AutoModelForTokenClassification, bga_mner.BgaMnerForTokenClassification),
            (AutoProcessor, bga_mner.BgaMnerProcessor),
        ):
            assert type(auto_class.from_pretrained(tmp_path, **options)) is expected
        pipe = pipeline("multimodal-ner", model=str(tmp_path), **options)
        assert type(pipe) is bga_mner.BgaMnerPipeline
    config = AutoConfig.from_pretrained(tmp_path)
    # or else `pipeline` would look for its class in the folder
    assert not hasattr(config, "custom_pipelines")
    assert not hasattr(config, "auto_map")


def test_only_the_main_process_writes(make_model, tmp_path):
    make_model().save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.iterdir())


def test_a_gitignore_of_ones_own_stays(make_config, tmp_path):
    make_config().save_pretrained(tmp_path / "new")
    assert (tmp_path / "new" / ".gitignore").read_text() == "training_args.bin\n"
    (tmp_path / ".gitignore").write_text("mine\n")
    make_config().save_pretrained(tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "mine\n"


def test_a_file_in_the_folders_place_is_left_alone(make_config, processor, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(AssertionError, match="should be a directory"):
        make_config().save_pretrained(file)
    with pytest.raises(FileExistsError):
        processor.save_pretrained(file)
    assert file.read_text() == "mine"


def test_a_name_on_the_hub_is_told_from_a_folder_there_or_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "bert").mkdir(parents=True)
    (tmp_path / "weights").write_text("")
    assert all(map(came_from_hub, ("bert-base-cased", "google-bert/bert-base-cased", "outputs/resnet")))
    local = ("", "outputs/bert", "weights", str(tmp_path), "/home/me/runs/gone", "./gone", "../gone", "~/gone", "a/b/c")
    assert not any(map(came_from_hub, local))


@pytest.fixture
def folders(make_model, tmp_path, monkeypatch):
    """Save two encoders in "models" of one folder, and go there; there is another folder to go to."""
    for name, encoder in (("bert", "text_encoder"), ("vit", "vision_encoder")):
        getattr(make_model().bga_mner, encoder).save_pretrained(tmp_path / "one" / "models" / name)
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    return tmp_path


def _path(folders, form):
    return {"relative": "models/bert", "above": "../one/models/bert", "absolute": str(folders / "one/models/bert")}[
        form
    ]


@pytest.mark.parametrize("form", ["relative", "above", "absolute"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_a_folder_left_behind_is_not_published(folders, monkeypatch, form, in_memory):
    name = _path(folders, form)
    text = AutoModel.from_pretrained(name) if in_memory else name
    if in_memory:  # loaded long before
        monkeypatch.chdir(folders / "two")
    vision = folders / "one" / "models" / "vit"
    model = BgaMnerForTokenClassification.from_text_vision_pretrained(text, str(vision), ["O", "B-X", "I-X"])
    monkeypatch.chdir(folders / "two")
    model.save_pretrained("model")
    saved = Path("model", "config.json").read_text(encoding="utf-8")
    assert "models/" not in saved
    assert str(folders) not in saved
    assert not came_from_hub(model.bga_mner.text_encoder.config.name_or_path)
    # the same of a model of this package
    loaded = BgaMnerForTokenClassification.from_pretrained("model")
    monkeypatch.chdir(folders)
    assert not came_from_hub(loaded.config.name_or_path)
    assert loaded.name_or_path == "./model"


def test_an_encoder_in_memory_that_the_cache_knows_came_from_the_hub(folders, make_model, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folders / "cache"))
    (folders / "cache" / "models--google-bert--bert-base-cased").mkdir(parents=True)
    for name, is_known in (("google-bert/bert-base-cased", True), ("google-bert/bert-base-uncased", False)):
        encoders = make_model().bga_mner
        encoders.text_encoder.config.name_or_path = name
        parts = encoders.text_encoder, encoders.vision_encoder
        model = BgaMnerForTokenClassification.from_text_vision_pretrained(*parts, ["O", "B-X", "I-X"])
        assert came_from_hub(model.config.text_config.name_or_path) is is_known
        # of what a file of this package tells, it was found out when that was saved
        model.config.save_pretrained("again")
        assert came_from_hub(BgaMnerConfig.from_pretrained("again").text_config.name_or_path) is is_known


@pytest.mark.parametrize("name", ["C:\\models\\bert", "models\\bert", "~/models/bert", "models/bert/", "..", "./a", ""])
def test_no_path_is_a_name_on_the_hub(name):
    assert not came_from_hub(name)
    assert marked_folder(name) == name


LOAD_WITHOUT_THE_PACKAGE = """
import json, torch
from transformers import AutoModelForTokenClassification

for folder in json.loads({folders!r}):
    model = AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True)
    batch = torch.load(folder + "/batch.pt", weights_only=True)
    with torch.no_grad():
        difference = (model(**batch).logits - torch.load(folder + "/logits.pt", weights_only=True)).abs().max()
    assert difference < 1e-5, (folder, difference)
    print(type(model.bga_mner.text_encoder).__name__, type(model.bga_mner.vision_encoder).__name__)
"""


def test_encoders_with_code_of_this_package_live_without_it(make_model, make_batch, bare_python, run_python, tmp_path):
    folders = []
    for text, vision in (("mpnet", "resnet"), ("deberta-v2", "siglip2_vision_model")):
        model = make_model(text, vision, hybrid_attention="both")
        batch = make_batch(pad_token_id=model.config.text_config.pad_token_id)
        folder = tmp_path / text
        model.save_pretrained(folder)
        torch.save(batch, folder / "batch.pt")
        torch.save(model(**batch).logits.detach(), folder / "logits.pt")
        folders.append(str(folder))
    code = LOAD_WITHOUT_THE_PACKAGE.replace("{folders!r}", repr(json.dumps(folders)))
    printed = run_python(code, bare_python, {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
    assert printed.split() == ["MPNetModel", "ConvStages", "DebertaV2Model", "Siglip2VisionModel"]
