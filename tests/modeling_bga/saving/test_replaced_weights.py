"""Tools that put something in the place of a linear layer's weight, or fetch it for each call, are seen everywhere."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers import BertConfig, BertForTokenClassification

from bga_mner import BgaMnerForSequenceClassification, BgaMnerForTokenClassification
from bga_mner.modeling_bga.alignment.context_sampler import ContextSampler


def linears(module):
    return [part for part in module.modules() if type(part) is nn.Linear]


def quantised(module, dtype=torch.qint8):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(torch.ao.quantization|torch.quantize_per_tensor).* deprecated")
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=dtype)


def pruned(module):
    for part in linears(module):
        prune.l1_unstructured(part, "weight", 0.4)
        with torch.no_grad():  # as an optimiser's step does; what is read by hand would be the weight of before
            part.weight_orig.add_(0.1)
    return module


def weight_normed(module):
    for part in linears(module):
        parametrizations.weight_norm(part)
        with torch.no_grad():
            part.parametrizations.weight.original0.mul_(1.5)
    return module


def adapted(module):
    peft = pytest.importorskip("peft", reason="peft is not installed: the extra `peft` brings it")
    names = [name for name, part in module.named_modules() if type(part) is nn.Linear]
    config = peft.LoraConfig(r=2, target_modules=names, init_lora_weights=False)
    return peft.inject_adapter_in_model(config, module).eval()


def hooked(module):
    for part in linears(module):
        part.register_forward_hook(lambda layer, given, output: 2 * output)
    return module


def offloaded(module):
    return cpu_offload(module, execution_device="cpu")


TOOLS = {tool.__name__: tool for tool in (pruned, weight_normed, adapted, hooked)}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_sampler_computes_what_its_layers_compute(tool):
    sampler = TOOLS[tool](ContextSampler(width=8, temperature=1.0, initial_keep=0.9).eval())
    states, keep = torch.randn(3, 5, 8), torch.tensor([[1.0, 0, 1, 1, 0]]).repeat(3, 1)
    found = sampler.logits(states, keep)
    # the formula of the class, with every layer called
    local, context = nn.functional.gelu(sampler.local_global(sampler.norm(states))).chunk(2, dim=-1)
    mean = torch.stack([row[kept.bool()].mean(dim=0) for row, kept in zip(context, keep, strict=True)])
    joined = torch.cat([local, mean[:, None].expand(-1, 5, -1)], dim=-1)
    expected = sampler.decision(nn.functional.gelu(sampler.hidden(joined)))
    torch.testing.assert_close(found, expected + sampler.decision_bias)


@pytest.mark.parametrize("model_class", [BgaMnerForTokenClassification, BgaMnerForSequenceClassification])
def test_offloaded_weights_give_the_same(make_config, make_batch, model_class, tmp_path):
    model, batch = model_class(make_config(hybrid_attention="both")).eval(), make_batch()
    del batch["labels"]
    with torch.no_grad():
        expected = model(**batch)
        parts = {name: "disk" if "branch" in name else "cpu" for name, _ in model.bga_mner.named_children()}
        places = {f"bga_mner.{name}": place for name, place in parts.items()}
        places |= {name: "disk" for name, _ in model.named_children() if name != "bga_mner"}
        on_disk = dispatch_model(copy.deepcopy(model), places, main_device="cpu", offload_dir=tmp_path)
        for other in (offloaded(copy.deepcopy(model)), on_disk):
            found = other(**batch)
            assert torch.equal(found.logits, expected.logits)
            assert torch.equal(found.loss, expected.loss)
            if model_class is BgaMnerForTokenClassification:
                assert torch.equal(found.predictions, expected.predictions)
                spans = [(0, "PER", 1, 3), (1, "LOC", 2, 3)]
                arguments = found.emissions, batch["attention_mask"], spans
                assert torch.equal(other.span_probabilities(*arguments), model.span_probabilities(*arguments))


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_a_quantised_tagger_errs_as_a_quantised_bert_does(make_model, make_batch, dtype):
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("this build of torch has no kernels for quantised layers")
    model, batch = make_model(text_options={"num_hidden_layers": 3}), make_batch((9, 9, 9), images=False)
    del batch["labels"]
    sizes = {key: getattr(model.config.text_config, key) for key in ("hidden_size", "vocab_size", "intermediate_size")}
    stock = BertForTokenClassification(
        BertConfig(**sizes, num_hidden_layers=3, num_attention_heads=2, num_labels=5)
    ).eval()

    def error(module, scores):
        with torch.no_grad():
            exact, rounded = scores(module(**batch)), scores(quantised(copy.deepcopy(module), dtype)(**batch))
        return ((rounded - exact).norm() / exact.norm()).item()

    # generated features go through as many layers again as the text itself
    assert 0 < error(model, lambda output: output.emissions) < 3 * error(stock, lambda output: output.logits)
