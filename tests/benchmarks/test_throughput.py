"""The benchmark of everything end to end, shortened to where only its machinery is tested."""

from __future__ import annotations

import json
import math

import pytest


SMALL = ["--size", "tiny", "--texts", "9", "--repeats", "1", "--json"]
RATIOS = {"stock", "stock_best_batch", "multimodal-ner", "one_by_one", "predict", "annotate", "onnx", "onnx_int8"}
RATIOS |= {"student", "student_best_batch", "annotate_student", "overhead"}


def test_prints_ratios_to_the_stock_pipeline_last(benchmark, capsys):
    found = benchmark.main([*SMALL, "--profile"])
    output = capsys.readouterr().out
    assert json.loads(output.strip().splitlines()[-1]) == {"throughput": found}
    assert set(found) == RATIOS
    assert found["stock"] == 1
    assert all(found[name] > 0 for name in RATIOS - {"overhead"})
    assert "Where the time of multimodal-ner goes" in output
    assert "tiny, 9 texts" in output


@pytest.mark.slow
def test_reads_tweets_with_the_tokenizer_of_an_encoder_and_annotates_on_ray(benchmark, capsys, tmp_path):
    pytest.importorskip("ray", reason="pip install bga-mner[ray]")
    (tmp_path / "valid.txt").write_text("Kawhi\tB-PER\nwins\tO\n\nin\tO\nToronto\tB-LOC\n\n" * 10)
    benchmark.build_tokenizer([["Kawhi", "wins", "in", "Toronto"]]).save_pretrained(tmp_path / "encoder")
    data = ["--data_dir", str(tmp_path), "--text_model", str(tmp_path / "encoder")]
    found = benchmark.main([*SMALL, *data, "--texts", "20", "--ray"])
    assert set(found) == RATIOS | {"annotate_on_ray"}
    assert found["annotate_on_ray"] > 0
    assert "tiny, 20 texts" in capsys.readouterr().out


def test_what_finds_something_else_is_refused(benchmark):
    entity = ("PER", 0, 1, 0.5)
    assert benchmark.check_same("a", [[entity], []], [[("PER", 0, 1, 0.500001)], []], 1e-5) == pytest.approx(1e-6)
    for other in (("LOC", 0, 1, 0.5), ("PER", 0, 2, 0.5), ("PER", 0, 1, 0.6), ("PER", 0, 1, math.nan)):
        with pytest.raises(RuntimeError, match="from a"):
            benchmark.check_same("a", [[entity]], [[other]], 1e-5)
    with pytest.raises(RuntimeError, match="others in text 1"):
        benchmark.check_same("a", [[], [entity]], [[], []], 1e-5)


def test_generated_texts_are_of_mixed_length_and_hold_few_entities(benchmark):
    texts = benchmark.make_sentences(200, 0)
    lengths = {len(text.split()) for text in texts}
    assert (min(lengths), max(lengths)) == (benchmark.SHORTEST, benchmark.LONGEST)
    assert benchmark.make_sentences(200, 0) == texts != benchmark.make_sentences(200, 1)
    tokenizer = benchmark.build_tokenizer([text.split() for text in texts])
    baseline = benchmark.make_baseline("tiny", vocab_size=len(tokenizer)).eval()
    benchmark.find_few_entities(baseline, tokenizer, texts)
    outside = benchmark.LABELS.index("O")
    tags = [baseline(**tokenizer(text, return_tensors="pt")).logits[0].argmax(-1) for text in texts[:50]]
    share = sum(int((row == outside).sum()) for row in tags) / sum(map(len, tags))
    assert share == pytest.approx(benchmark.OUTSIDE, abs=0.02)
