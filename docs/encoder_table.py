"""Print docs/reference/encoders.md, made of the entries of configuration/encoder_families.py.

python docs/encoder_table.py > docs/reference/encoders.md
"""

from __future__ import annotations

from collections.abc import Iterable

from bga_mner.configuration.encoder_families import (
    BACKBONE_FAMILIES,
    TEXT_FAMILIES,
    VISION_FAMILIES,
    BackboneFamily,
    EncoderFamily,
)


HEAD = """# Encoders

Any text encoder below goes with any vision encoder: `text_config` and `vision_config` of `BgaMnerConfig`, or two
checkpoints for `from_text_vision_pretrained`. Depths, widths and picture sizes may differ. Printed by
`python docs/encoder_table.py`.

How an encoder reads generated features:

- **layer-wise**: hybrid attention in the encoder's own layers, with their own key and value projections, through
  transformers' attention interface.
- **layer-wise, own attention class**: the same, but the encoder's attention doesn't use the interface, so a class of
  this package with the same weights and the same results takes its place.
- **new layers**: a convolutional encoder has no layers for stages to stand before. Its last feature map becomes
  tokens, one a cell, which new transformer layers (ViT's, untrained) read; these attend layer-wise.

Every gate starts nearly closed, so that a model begins as the plain encoder that it was made of.
"""

TAIL = """## Settings

- **New layers**: `vision_config={"model_type": "resnet", ...}` gets four of width 384;
  `ConvStagesConfig(backbone_config=..., num_hidden_layers=2, hidden_size=256, num_attention_heads=4)` as
  `vision_config` chooses others.
- **Batch normalisation** keeps the statistics that it was loaded with, in training too. Its scale and shift are
  trained unless they are frozen.
- **Freezing**: `model.freeze_vision_encoder()` stops training the vision encoder (of a convolutional one all but the
  new layers, and with `new_layers=True` these too; see below). A frozen encoder stays in evaluation mode under
  `model.train()`, and no graph is built through it. `cache_vision_states` runs it once. Of a convolutional one it keeps
  the last feature map, on which the new layers run if they are trained.
- **Learning rates**: `layerwise_parameter_groups(model, 2e-5, decay=0.9)` makes groups for any torch optimizer, which
  a `Trainer` takes as `optimizers=(torch.optim.AdamW(groups), None)`. What is new has ten times the rate, or
  `new_learning_rate`.
- **Gradient checkpointing**: `model.activation_checkpointing_enable()`, or `gradient_checkpointing=True` for
  `Trainer`, in the layers of every encoder, MPNet included. Convolutions are not computed again.
- **Attention** runs on PyTorch's `scaled_dot_product_attention`, which chooses its kernel, and on nothing else: any
  `attn_implementation` but "sdpa" is refused, for the model as for an encoder inside it.
- **Flash attention**: of the encoders above, all but MPNet, DeBERTa and SigLIP2 NaFlex run on the `flash_attn` package
  in transformers. Here none does: its kernels take no bias, and generated keys come with one (the gate, and the keep
  mask), so features would be read with gates wide open or not at all. PyTorch's own flash kernel is used where it can
  be: layers that no stage stands before, in batches without padding, hand over no mask and no bias. The layers of a
  stage, padded batches, and MPNet and DeBERTa, whose positions are biases, go to a kernel that takes them (on CUDA the
  memory-efficient one; which kernel runs there was not measured). `test_encoder_families.py` counts the calls.
- **SigLIP2**: checkpoints of a fixed size are of the type `siglip`. NaFlex ones read pictures of any shape in
  patches; here they read squares, and `BgaMnerProcessor` replaces their image processor by one that makes these.
- **open_clip**: `open_clip:ViT-B-32/laion2b_s34b_b79k` (model and tag) or `open_clip:ViT-B-32/weights.safetensors`
  (model and file) stands for a vision encoder in `from_text_vision_pretrained`, `load_image_processor` and
  `run_mner.py --vision_model`. It needs the extra `openclip` and torchvision once: what is built is a
  `clip_vision_model` with open_clip's weights, activation and picture preparation, and is saved as one. Its states are
  open_clip's to 1e-4 (`test_open_clip.py`). Where weights were trained with quick GELU, as `openai`'s, it is used,
  though the model's name may lack `-quickgelu`. Refused with the reason: ModifiedResNets, timm's towers (SigLIP's
  among them: take transformers' checkpoints), CoCa and CLIPA.
- **Adapters**: `peft.get_peft_model(model, lora_config(model, r=8, encoders=("text", "vision")))` puts LoRA on the
  query, key and value projections of every transformer above (ModernBERT's fused one included). What is new is trained
  whole: samplers, generators, projections, gates, head, CRF, and the new layers on a convolutional encoder, which gets
  no adapters itself. Generated features are read through the adapters too. `merge_and_unload()` makes a plain model of
  it again; `run_mner.py --lora_rank 8` does all of this. It needs the extra `peft`; transformers' own
  `model.add_adapter(lora_config(model))` needs the version of peft that transformers asks for. `task_type="TOKEN_CLS"`
  or `"SEQ_CLS"` may be given. A plain `LoraConfig` with such a task type leaves what is new frozen, all but the
  classifier, and `train()` warns of it.
- **timm** needs torchvision, of the build (CPU or CUDA) that torch has: with a CPU build, a plain `pip install timm`
  may bring a torchvision that can't be imported, or another torch. A saved model needs timm again, unless it was
  saved with `text_only=True`. Its image processor, which can't be saved, is replaced by a stock one that makes the same
  pictures (`test_timm.py`).
- **DINOv3**'s image processor needs torchvision. Without it `load_image_processor` gives a stock one that differs in
  the rounding of resized pictures alone.
- **Not supported**: `dinov3_convnext`, whose model gives tokens and not a map; timm's vision transformers; all
  others, which `BgaMnerConfig` refuses by name.

## Which one teaches most?

Tiny encoders, which first learned to tell drawings of four concepts apart, and were then frozen and aligned on 1,600
pairs; on held-out drawings, and on names that no label ever named, 200 sentences without pictures; seeds 0 / 1:

| vision encoder | drawings told apart | F1 | type accuracy | seconds a step |
|---|---|---|---|---|
| CLIP's | 0.815 / 0.805 | 0.439 / 0.332 | 0.538 / 0.388 | 0.16 |
| DINOv2 | 0.745 / 0.700 | 0.456 / 0.518 | 0.561 / 0.554 | 0.17 |
| ResNet | 1.000 / 1.000 | 0.970 / 0.972 | 0.990 / 0.995 | 0.12 |
| ConvNeXt | 0.920 / 0.970 | 0.568 / 0.519 | 0.590 / 0.613 | 0.10 |
| EfficientNet | 1.000 / 1.000 | 0.965 / 0.957 | 1.000 / 1.000 | 0.12 |
| none: text only | | 0.060 / 0.000 | 0.292 / 0.000 | 0.07 |

Printed by `python examples/compare_encoders.py --quick --threads 1 --quiet --json --seeds 0`, and with `--seeds 1`, on
a machine that had other work to do (EfficientNet in a run of its own, `--encoders efficientnet`). These are few pairs
and steps: benchmarks/alignment.py's own setting takes a transformer to 0.98. What it shows: convolutional encoders
align too, and an encoder that tells concepts apart itself teaches more. Few pictures favour convolutions there, as they
may not where encoders come pretrained. Which one is best on tweets is open; the script's help has the commands, which
nobody has run.

The new layers on a convolutional encoder stay untrained there. Trained with the rest (`--train_new_layers`), they keep
moving what is to be generated: ResNet has 0.356 and 0.220 then, ConvNeXt 0.257 and EfficientNet 0.509 (seed 0). To
freeze them: `model.freeze_vision_encoder(new_layers=True)`. More steps get there too: ResNet had 1.000 after the
default 450, on 2,400 pairs (`--threads 1 --quiet --seeds 0 --vision_steps 400 --train_new_layers --encoders resnet`).
"""


def table(families: Iterable[tuple[str, EncoderFamily | BackboneFamily]]) -> str:
    """Return the Markdown table of some families."""
    rows = ["| `model_type` | encoders | generated features | notes | tested in |", "|---|---|---|---|---|"]
    for model_type, family in families:
        if isinstance(family, BackboneFamily):
            how = "new layers"
            statistics = "batch normalisation stays as it is" if family.has_batch_norm else ""
            notes = "; ".join(part for part in (family.note, statistics) if part)
        else:
            how = "layer-wise, own attention class" if family.own_attention else "layer-wise"
            notes = family.note
        tested = "test_timm.py" if model_type.startswith("timm") else "test_encoder_families.py"
        rows.append(f"| `{model_type}` | {family.name} | {how} | {notes} | `{tested}` |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the text of docs/reference/encoders.md."""
    tested = "Tests are in `tests/modeling_bga/`, with tiny random models.\n"
    sections = [HEAD, "## Text\n", table(TEXT_FAMILIES.items()), "## Vision transformers\n"]
    sections += [table(VISION_FAMILIES.items()), "## Convolutional vision encoders\n"]
    return "\n".join([*sections, table(BACKBONE_FAMILIES.items()), tested, TAIL])


if __name__ == "__main__":
    print(page(), end="")
