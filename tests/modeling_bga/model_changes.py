"""What tests change in tiny, untrained models and batches, so that there is something to see."""

import torch


def only_text(batch):
    return {name: tensor for name, tensor in batch.items() if name in ("input_ids", "attention_mask")}


def open_gates(model, value=0.0):
    """Let generated features weigh as much as own tokens, so that a test sees them."""
    with torch.no_grad():
        for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
            for projection in branch.projections or []:
                projection.gate.fill_(value)
    return model


def spread_samplers(model):
    """Make untrained samplers keep about half of what they see, so that keep masks have something to show."""
    with torch.no_grad():
        for branch in (model.bga_mner.text_branch, model.bga_mner.vision_branch):
            for sampler in branch.samplers:
                sampler.decision_bias.zero_()
                sampler.decision.weight.mul_(5)
    return model


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
