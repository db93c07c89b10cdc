from __future__ import annotations

import torch


_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def test_sentences_beside_replaced_ones_read_what_they_always_do(make_model, make_batch):
    # with nothing that generates, the real picture
    options = {"use_text_to_image": False, "use_image_to_text": False, "visual_source": "real"}
    options |= {"entity_replacement_probability": 1.0, "classifier_dropout": 0.0, "text_options": _NO_DROPOUT}
    model, batch = make_model(**options).train(), make_batch()
    with torch.no_grad():
        for projection in model.bga_mner.text_branch.projections:
            projection.gate.zero_()
    batch["labels"][1:] = -100
    beside_replaced = model(**batch).emissions
    batch["labels"][:] = -100
    alone = model(**batch).emissions
    assert (beside_replaced[0] - alone[0]).abs().max() > 1e-3
    torch.testing.assert_close(beside_replaced[1:], alone[1:])
    batch["pixel_values"] = batch["pixel_values"].flip(0)
    assert (model(**batch).emissions[2] - alone[2]).abs().max() > 1e-5
