"""The benchmark on real captions, shortened to where only its machinery is tested."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from bga_mner.examples.synthetic.experiment import Variant, with_images


@pytest.fixture
def short(caption_folder):
    argv = ["--data_dir", str(caption_folder), "--text_model", str(caption_folder / "bert"), "--image_size", "16"]
    argv += ["--vision_model", str(caption_folder / "vit"), "--names", "4", "--pairs_per_name", "3", "--epochs", "1"]
    return [*argv, "--config", '{"gate_initial_bias": 0.0}', "--batch_size", "8", "--quiet", "--json"]


def last_line(capsys):
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


def test_prints_every_variant_for_every_seed(benchmark, short, capsys):
    names = ["full", "text_only", "real_images"]
    found = benchmark.main([*short, "--seeds", "3,4", "--variants", ",".join(names), "--report"])
    line = last_line(capsys)
    assert line.keys() == {"captions", "report"}
    assert line["captions"] == found
    assert list(found) == list(line["report"]) == names
    for values in found.values():
        assert set(values) == {"f1", "type_accuracy", "names_right", "labelled_f1"}
    figures = {"real_accuracy", "names_auc", "training_auc", "test_auc", "generated_spread"}
    figures |= {"entering_accuracy", "states_accuracy", "states_names_right"}
    figures |= {"context_accuracy", "context_names_right", "new_names_accuracy", "new_names_right"}
    for values in line["report"].values():
        assert set(values) == figures
        # people and animals have other colours, which any encoder tells apart
        assert min(values["real_accuracy"]) > 0.9
        assert min(values["generated_spread"]) >= 0
    for values in (*found.values(), *line["report"].values()):
        assert all(len(of_seeds) == 2 for of_seeds in values.values())
    shares = [values for kind, values in line["report"]["full"].items() if kind != "generated_spread"]
    assert all(0 <= value <= 1 for values in (*shares, *found["full"].values()) for value in values)
    # they only differ at test, and text that learns from images ends elsewhere
    assert line["report"]["full"] == line["report"]["real_images"] != line["report"]["text_only"]


def test_draws_matches_and_failures(benchmark, experiment, tmp_path, monkeypatch):
    drawn = []
    view = import_module("bga_mner.processing.evaluation.alignment_figure")
    monkeypatch.setattr(view, "draw_alignment", lambda pairs, path: drawn.extend(pairs))
    model, names = benchmark.make_model(experiment.options, Variant()).eval(), experiment.corpus.unlabelled_names

    def right_for_one_kind(model, processor, rows, **_):
        found = []
        for words in rows["tokens"]:
            name = next(name for name in names if name in " ".join(words))
            count = len(name.split())
            first = words.index(name.split()[0])
            tags = ["O"] * len(words)
            tags[first : first + count] = ["B-person", *["I-person"] * (count - 1)]
            found.append(tags)
        return found

    monkeypatch.setattr(benchmark, "predict_tags", right_for_one_kind)
    experiment.draw(model, tmp_path / "figure.png")
    # of four names of a type, two are never labelled: first those that are right
    kinds = [next(kind for name, kind in names.items() if name in " ".join(one.words)) for one, _ in drawn]
    assert kinds == ["person", "person", "animal", "animal"]
    assert all(Path(image).is_file() for _, image in drawn)


def test_the_figure_is_of_the_first_training(benchmark, short, tmp_path):
    benchmark.main([*short, "--variants", "full", "--figure", str(tmp_path / "figure.png")])
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.height > 300


def test_goes_on_from_what_was_measured(benchmark, short, tmp_path, capsys, monkeypatch):
    trained = []

    class Watched(benchmark.CaptionExperiment):
        def train(self, variant):
            trained.append((self.seed, variant.images))
            return super().train(variant)

    monkeypatch.setattr(benchmark, "CaptionExperiment", Watched)
    kept = [*short, "--variants", "full,text_only", "--report", "--results", str(tmp_path / "results.jsonl")]
    benchmark.main([*kept, "--seeds", "4"])
    first = last_line(capsys)
    benchmark.main([*kept, "--seeds", "3,4"])
    both = last_line(capsys)
    assert trained == [(4, "paired"), (4, "none"), (3, "paired"), (3, "none")]
    for part in ("captions", "report"):
        for name, values in first[part].items():
            assert values == {key: of_seeds[1:] for key, of_seeds in both[part][name].items()}
    benchmark.main([*kept, "--seeds", "3,4"])
    assert last_line(capsys) == both
    benchmark.main([word for word in [*kept, "--seeds", "3,4"] if word != "--report"])
    assert last_line(capsys) == {"captions": both["captions"]}
    assert len(trained) == 4
    # there is no figure without a model
    benchmark.main([*kept, "--seeds", "3,4", "--figure", str(tmp_path / "new" / "figure.png")])
    assert trained[4:] == [(3, "paired")]


@pytest.mark.slow
def test_every_variant_runs(benchmark, short, capsys):
    found = benchmark.main([*short, "--variants", ",".join(benchmark.VARIANTS), "--report"])
    # the text generates nothing that is read, or states of inner layers, which are not returned
    assert list(found) == [*benchmark.VARIANTS]
    assert found.keys() - last_line(capsys)["report"].keys() == {"no_hybrid", "image_to_text_only", "paper"}


@pytest.mark.parametrize(("variant", "layers"), [("full", 2), ("one_stage", 1), ("four_stages", 4), ("paper", 5)])
def test_variants_align_as_many_layers_as_they_say(benchmark, tmp_path, variant, layers):
    sizes = {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=20, **sizes)).save_pretrained(tmp_path / "bert")
    ViTModel(ViTConfig(image_size=16, patch_size=8, **sizes)).save_pretrained(tmp_path / "vit")
    encoders = {"text_model": str(tmp_path / "bert"), "vision_model": str(tmp_path / "vit")}
    options = Namespace(image_size=16, config={}, **encoders)
    assert benchmark.make_model(options, benchmark.VARIANTS[variant]).config.num_stages == layers


def test_each_image_is_seen_once(benchmark, short, monkeypatch):
    seen = []
    cache = benchmark.data_files.cache_vision_states

    def watched(dataset, model, *args, **kwargs):
        assert not any(weight.requires_grad for weight in model.bga_mner.vision_encoder.parameters())
        seen.extend(dataset["image"])
        return cache(dataset, model, *args, **kwargs)

    monkeypatch.setattr(benchmark.data_files, "cache_vision_states", watched)
    benchmark.main([*short, "--seeds", "0,1", "--variants", "full,shuffled_images"])
    assert max(Counter(seen).values()) == 1
    used = {path for seed in (0, 1) for path in benchmark.build_corpus(Path(short[1]), seed, 4, 3).train["image"]}
    assert set(seen) == used


@pytest.fixture
def experiment(benchmark, short, tmp_path):
    parser = ArgumentParser()
    benchmark.add_options(parser)
    options = benchmark.read_options(parser, short)
    options.folder = tmp_path
    corpus = benchmark.build_corpus(options.data_dir, 0, options.names, options.pairs_per_name)
    encoders = benchmark.ModelArguments(options.text_model, options.vision_model, image_size=16)
    _, processor = benchmark.build_model(encoders, list(benchmark.LABELS), images=True, max_length=None)
    variants = [benchmark.VARIANTS[name] for name in ("one_stage", "full")]
    states = benchmark.encode_images(options, processor, corpus.train["image"], variants)
    return benchmark.CaptionExperiment(options, 0, corpus, processor, states)


@pytest.mark.parametrize("variant", ["full", "one_stage"])
def test_pairs_have_the_states_of_their_images(benchmark, experiment, variant):
    model = benchmark.make_model(experiment.options, benchmark.VARIANTS[variant]).eval()
    rows, train = experiment.rows_for(model), experiment.corpus.train.select_columns(["image", "tokens", "ner_tags"])
    for row, words in zip(rows, train, strict=True):
        pixels = experiment.processor(images=[words["image"]], return_tensors="pt")["pixel_values"]
        expected = model.bga_mner.encode_images(pixels)[0].detach().numpy()
        np.testing.assert_allclose(row["vision_states"], expected, atol=1e-5)
        known = [label for label in row["labels"] if label != -100]
        assert bool(known) == (words["ner_tags"] is not None)


def test_controls_see_what_they_should(experiment):
    rows = experiment.rows
    assert with_images(rows, "paired", 0, "vision_states") == rows
    assert all(row["vision_states"] is None for row in with_images(rows, "none", 0, "vision_states"))
    shuffled = with_images(rows, "shuffled", 0, "vision_states")
    own, others = ([id(row["vision_states"]) for row in part] for part in (rows, shuffled))
    assert own != others
    assert sorted(own) == sorted(others)
    assert [row["input_ids"] for row in shuffled] == [row["input_ids"] for row in rows]


def test_rates_are_of_pretrained_and_of_new_weights(benchmark, experiment, monkeypatch):
    rates, adam = {}, benchmark.torch.optim.AdamW

    def watched(groups, **options):
        rates.update({group["name"]: group["lr"] for group in groups})
        return adam(groups, **options)

    monkeypatch.setattr(benchmark.torch.optim, "AdamW", watched)
    experiment.options.learning_rate, experiment.options.new_learning_rate = 0.25, 0.5
    experiment.train(Variant())
    assert {rate for name, rate in rates.items() if name.startswith("new")} == {0.5}
    assert {rate for name, rate in rates.items() if not name.startswith("new")} == {0.25}
    assert not any(name.startswith("vision_encoder") for name in rates)


def test_says_what_to_mend(benchmark, short, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"Expected captions\.tsv in --data_dir"):
        benchmark.main([*short, "--data_dir", str(tmp_path)])
    for flags, message in (
        (["--variants", "both_branches"], "got both_branches"),
        (["--names", "1"], "at least 2"),
        (["--figure", "a.png", "--variants", "paper,full"], "features can be drawn, got paper"),
        (["--figure", "a.png", "--variants", "image_to_text_only"], "features can be drawn, got image_to_text_only"),
        (["--figure", "a.png", "--config", '{"visual_target": "layer"}'], "got full with --config {'visual_target'"),
        (["--figure", "a.png", "--config", '{"normalize_targets": false}'], "got full with --config"),
    ):
        with pytest.raises(SystemExit):
            benchmark.main([*short, *flags])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="Expected a file to write as --figure"):
        benchmark.main([*short, "--figure", str(tmp_path)])
    with pytest.raises(ValueError, match="image processor in the vision model"):
        benchmark.main([*short, "--vision_model", str(tmp_path)])


def test_the_probe_learns_from_images_of_labelled_pairs(benchmark, experiment, monkeypatch):
    corpus = experiment.corpus
    name_of = {id(row["input_ids"]): name for row, name in zip(experiment.rows, corpus.train["name"], strict=True)}
    types = corpus.labelled_names | corpus.unlabelled_names
    sign = {name: 1.0 if kind == "person" else -1.0 for name, kind in types.items()}
    texts = iter([list(corpus.unlabelled_names), corpus.test_unseen_labels["name"]])

    def features(model, rows):
        texts_of = [id(row["input_ids"]) for row in rows]
        trained = texts_of[0] in name_of
        names = [name_of[text] for text in texts_of] if trained else next(texts)
        signs = benchmark.torch.tensor([[sign[name]] for name in names])
        # images of never-labelled names tell nothing, and their captions the wrong type
        return (-signs, 0 * signs) if trained and names[0] in corpus.unlabelled_names else (signs, signs)

    monkeypatch.setattr(experiment, "_mean_features", features)
    report = experiment.report(benchmark.make_model(experiment.options, Variant()))
    assert {name: report[name] for name in ("real_accuracy", "names_auc", "training_auc", "test_auc")} == {
        "real_accuracy": 0.5,
        "names_auc": 1.0,
        "training_auc": 0.0,
        "test_auc": 1.0,
    }


def test_what_context_tells_is_read_beside_new_names(benchmark, experiment, monkeypatch):
    corpus, tagged = experiment.corpus, []
    unknown, tested = corpus.test_new_names, corpus.test_unseen_labels

    def all_people(model, processor, rows, **_):
        tagged.append(rows["tokens"][:])
        return [[tag.replace("animal", "person") for tag in tags] for tags in rows["ner_tags"]]

    monkeypatch.setattr(benchmark, "predict_tags", all_people)
    report = experiment._told_by_context(benchmark.make_model(experiment.options, Variant()))
    assert tagged == [unknown["tokens"][:]]
    # half of the names are people
    assert report["new_names_accuracy"] == report["new_names_right"] == 0.5
    right = [
        (odds > 0) == (corpus.unlabelled_names[name] == "person")
        for odds, name in zip(tested["odds"], tested["name"], strict=True)
    ]
    assert report["context_accuracy"] == np.mean(right)
    by_name = {
        name: [ok for ok, its in zip(right, tested["name"], strict=True) if its == name] for name in tested["name"]
    }
    assert report["context_names_right"] == np.mean([np.mean(oks) > 0.5 for oks in by_name.values()])


def test_features_are_those_that_are_generated_and_their_targets(benchmark, experiment):
    model = benchmark.make_model(experiment.options, Variant()).eval()
    generated, real = experiment._mean_features(model, experiment.rows[:3])
    for row, made, target in zip(experiment.rows[:3], generated, real, strict=True):
        states = benchmark.torch.from_numpy(row["vision_states"][-1])
        expected = (states - states.mean(-1, keepdim=True)) / states.std(-1, keepdim=True, correction=0)
        # class token and mean patch; no image was measured yet
        expected = np.concatenate([expected[0], expected[1:].mean(0)])
        np.testing.assert_allclose(target, expected, atol=1e-3)
        alone = model(input_ids=benchmark.torch.tensor([row["input_ids"]])).generated_vision[-1]
        np.testing.assert_allclose(made, alone[0].flatten().detach(), atol=1e-5)
    # an image adds nothing to what is generated from words
    words = experiment.corpus.train["tokens"][:3]
    np.testing.assert_allclose(experiment._generated(model, words), generated, atol=1e-5)


def test_states_of_names_are_means_over_their_tokens(benchmark, experiment):
    model = benchmark.make_model(experiment.options, Variant()).eval()
    labelled = [row for row in experiment.rows if any(label > 0 for label in row["labels"])][:3]
    for row, entering, leaving in zip(labelled, *experiment._name_states(model, labelled), strict=True):
        output = model.bga_mner(benchmark.torch.tensor([row["input_ids"]]), output_hidden_states=True)
        for mean, states in ((entering, output.hidden_states[-2]), (leaving, output.last_hidden_state)):
            of_name = [states[0, at].detach().numpy() for at, label in enumerate(row["labels"]) if label > 0]
            np.testing.assert_allclose(mean, np.mean(of_name, axis=0), atol=1e-5)


def test_the_reader_of_states_is_scored_by_caption_and_by_name(benchmark, experiment, monkeypatch):
    corpus = experiment.corpus
    test = corpus.test_unseen_labels
    kinds = [corpus.labelled_names[name] for name in corpus.train["name"] if name in corpus.labelled_names]
    wrong = test["name"][0]  # its captions read like those of the other type
    of_test = [(corpus.unlabelled_names[name] == "person") != (name == wrong) for name in test["name"]]
    of_labelled = [kind == "person" for kind in kinds]
    # before the last layer all is right
    told = iter([[of_labelled] * 2, [[corpus.unlabelled_names[name] == "person" for name in test["name"]], of_test]])
    monkeypatch.setattr(
        experiment, "_name_states", lambda model, rows: benchmark.torch.tensor(next(told)).float()[..., None]
    )
    report = experiment.report(benchmark.make_model(experiment.options, Variant()))
    names = test["name"][:]
    assert report["entering_accuracy"] == 1
    assert report["states_accuracy"] == pytest.approx(1 - names.count(wrong) / len(names))
    assert report["states_names_right"] == pytest.approx(1 - 1 / len(set(names)))
