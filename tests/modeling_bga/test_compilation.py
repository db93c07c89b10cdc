"""torch.compile sees whole graphs: everything but the CRF in one, and one break before that."""

from __future__ import annotations

import pytest
import torch
from packaging.version import Version


# The compiler looks at the gradients of what comes in behind the break.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.skipif(
        Version(torch.__version__) < Version("2.13"), reason="torch 2.6 breaks the graph inside transformers' layers"
    ),
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("training", "options"), [(False, {}), (True, {"loss_stages": "sampled"}), (True, {"hybrid_attention": "both"})]
)
def test_the_base_model_is_one_graph(make_model, make_batch, training, options):
    model, batch = make_model(**options).bga_mner.train(training), make_batch()
    del batch["labels"]
    # the eager backend runs the captured graph as it is; `fullgraph` refuses breaks
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    outputs = []
    for called in (model, compiled):
        torch.manual_seed(3)
        outputs.append(called(**batch))
    torch.testing.assert_close(outputs[1].last_hidden_state, outputs[0].last_hidden_state)
    torch.testing.assert_close(outputs[1].reconstruction_loss, outputs[0].reconstruction_loss)
    torch.testing.assert_close(outputs[1].cycle_loss, outputs[0].cycle_loss)


@pytest.mark.parametrize("training", [False, True])
def test_the_tagger_breaks_at_the_crf_alone(make_model, make_batch, training):
    model, batch = make_model().train(training), make_batch()
    found = torch._dynamo.explain(model)(**batch)
    assert found.graph_break_count == 1
    # what is trained on is watched behind the CRF, where no graph is left
    breaks = ("ConditionalRandomField", "watch_objective") if training else ("ConditionalRandomField",)
    assert all(any(name in reason.reason for name in breaks) for reason in found.break_reasons)


def test_a_compiled_tagger_learns_and_tags_as_an_eager_one(make_model, make_batch):
    model, batch = make_model(), make_batch()
    compiled = torch.compile(model, backend="aot_eager")
    expected, found = model(**batch), compiled(**batch)
    assert torch.equal(found.predictions, expected.predictions)
    torch.testing.assert_close(found.logits, expected.logits)
    gradients, parameters = [], dict(model.named_parameters())
    for output in (expected, found):
        model.zero_grad(set_to_none=True)
        output.loss.backward()
        # the compiler gives zeros to what no loss depends on, as the vision encoder's last layer, a target
        gradients.append({name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()})
    torch.testing.assert_close(gradients[1], gradients[0])
    # a loss of the tag scores is taken beside the model's own, and not in its place
    found = compiled.train()(**batch)
    (found.loss + found.logits.sum()).backward(retain_graph=True)
    with pytest.raises(ValueError, match="label_smoothing_factor"):
        compiled(**batch).logits.sum().backward()
