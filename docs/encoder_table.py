"""Print docs/reference/encoders.md, made of the entries of configuration/encoder_families.py.

python docs/encoder_table.py > docs/reference/encoders.md
"""

from __future__ import annotations

from collections.abc import Iterable

from bga_mner.configuration.encoder_families import BACKBONE_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES, EncoderFamily


HEAD = """# Encoders

Any text encoder below combines with any vision encoder, through `text_config` and `vision_config` of `BgaMnerConfig`
or two checkpoints for `from_text_vision_pretrained`. Depths, widths and image sizes may differ.
`python docs/encoder_table.py` prints this page.

The tables say how an encoder reads generated features:

- **layer-wise**: the encoder's own layers run hybrid attention, with their own key and value projections, through
  transformers' attention interface.
- **layer-wise, own attention class**: the encoder's attention does not use that interface. A class of this package
  replaces it, with the same weights and the same results.
- **new layers**: a convolutional encoder has no layers for stages to stand before. Each cell of its last feature map
  becomes a token. New transformer layers (ViT's, untrained) read these tokens layer-wise.

Generated features get little attention at first, so a model starts near the plain encoder that it was built from.
"""

TAIL = """## Settings

- **New layers**: `vision_config={"model_type": "resnet", ...}` gets four new layers of width 384. For others, pass
  `ConvStagesConfig(backbone_config=..., num_hidden_layers=2, hidden_size=256, num_attention_heads=4)` as
  `vision_config`.
- **Batch normalisation** keeps the statistics that it was loaded with, also in training. Its scale and shift are
  trained unless they are frozen.
- **Freezing**: `model.freeze_vision_encoder()` freezes the vision encoder. The new layers on a convolutional encoder
  still train, unless `new_layers=True` freezes them too (see below). A frozen encoder stays in evaluation mode under
  `model.train()`, and no graph is built through it. `cache_vision_states` runs it once. For a convolutional encoder
  with trained new layers, it caches the last feature map, on which the new layers run.
- **Learning rates**: `layerwise_parameter_groups(model, 2e-5, decay=0.9)` builds groups for any torch optimizer.
  `Trainer` takes it as `optimizers=(torch.optim.AdamW(groups), None)`. New modules get ten times the rate, or
  `new_learning_rate`.
- **Gradient checkpointing**: `model.activation_checkpointing_enable()`, or `gradient_checkpointing=True` for
  `Trainer`, works in the layers of every encoder, MPNet included. Convolutions are not recomputed.
- **Attention** always runs on PyTorch's `scaled_dot_product_attention`, which chooses its kernel. Any
  `attn_implementation` other than "sdpa" is refused, for the model and for the encoders inside it.
- **Flash attention**: of the encoders above, all but MPNet, DeBERTa and SigLIP2 NaFlex run on the `flash_attn` package
  in transformers. None does here. Its kernels take no bias, and the gate is a bias on generated
  keys: without it, what the gate learned would be lost. PyTorch's own flash kernel
  runs where neither mask nor bias is needed: in layers without a stage, in batches without padding. Layers with a
  stage, padded batches, and MPNet and DeBERTa, whose positions are biases, run on a kernel that takes a bias (on CUDA
  the memory-efficient one; which kernel runs there was not measured). `test_encoder_families.py` counts the calls.
- **SigLIP2**: checkpoints of a fixed size have the type `siglip`. NaFlex checkpoints read images of any shape in
  patches. Here they read squares, and `BgaMnerProcessor` replaces their image processor by one that makes squares.
- **open_clip**: `open_clip:ViT-B-32/laion2b_s34b_b79k` (model and tag) or `open_clip:ViT-B-32/weights.safetensors`
  (model and file) names a vision encoder in `from_text_vision_pretrained`, `load_image_processor` and
  `run_mner.py --vision_model`. Only the first load needs the extra `openclip` and torchvision. The result is a
  `clip_vision_model` with open_clip's weights, activation and image preprocessing, and is saved as one. Its states are
  open_clip's to 1e-4 (`test_open_clip.py`). Weights that were trained with quick GELU, as `openai`'s were, use it even
  if the model's name lacks `-quickgelu`. ModifiedResNets, timm's towers (SigLIP's among them: use transformers'
  checkpoints), CoCa and CLIPA are refused, with the reason.
- **Adapters**: `peft.get_peft_model(model, lora_config(model, r=8, encoders=("text", "vision")))` puts LoRA on the
  query, key and value projections of every transformer above, including ModernBERT's fused one. New modules are trained
  in full: samplers, generators, projections, gates, head, CRF, and the new layers on a convolutional encoder. The
  convolutional encoder itself gets no adapters. Generated features pass through the adapters, too.
  `merge_and_unload()` restores a plain model. `run_mner.py --lora_rank 8` does all of this. It needs the extra `peft`;
  transformers' own `model.add_adapter(lora_config(model))` needs the version of peft that transformers requires.
  `task_type="TOKEN_CLS"` or `"SEQ_CLS"` may be given. A plain `LoraConfig` with such a task type freezes all new
  modules except the classifier, and `train()` warns about it.
- **timm** needs a torchvision of the same build (CPU or CUDA) as torch. With a CPU build, a plain `pip install timm`
  may install a torchvision that can't be imported, or another torch. A saved model still needs timm, unless it was
  saved with `text_only=True`. timm's image processor can't be saved, so a stock one that makes the same images replaces
  it (`test_timm.py`).
- **DINOv3**'s image processor needs torchvision. Without torchvision, `load_image_processor` returns a stock one that
  differs only in how it rounds resized images.
- **Not supported**: `dinov3_convnext`, whose model returns tokens and no feature map; timm's vision transformers; and
  all other encoders, which `BgaMnerConfig` refuses by name.

## Which one teaches most?

In this comparison (defaults of release 0.1), tiny vision encoders first learned to tell drawings of four concepts
apart. They were then frozen and aligned on 1,600 pairs. The table shows their accuracy on held-out drawings, and scores
on 200 sentences without images, whose names no label ever named; seeds 0 / 1:

| vision encoder | accuracy on drawings | F1 | type accuracy | seconds per step |
|---|---|---|---|---|
| CLIP's | 0.815 / 0.805 | 0.439 / 0.332 | 0.538 / 0.388 | 0.16 |
| DINOv2 | 0.745 / 0.700 | 0.456 / 0.518 | 0.561 / 0.554 | 0.17 |
| ResNet | 1.000 / 1.000 | 0.970 / 0.972 | 0.990 / 0.995 | 0.12 |
| ConvNeXt | 0.920 / 0.970 | 0.568 / 0.519 | 0.590 / 0.613 | 0.10 |
| EfficientNet | 1.000 / 1.000 | 0.965 / 0.957 | 1.000 / 1.000 | 0.12 |
| none: text only | | 0.174 / 0.173 | 0.182 / 0.188 | 0.06 |

The commands are `python examples/compare_encoders.py --quick --threads 1 --quiet --json --seeds 0` and the same with
`--seeds 1` (EfficientNet in a run of its own, `--encoders efficientnet`, and text only in one with today's defaults).
Other processes ran on the machine, which affects the seconds. Pairs and steps are few: in the setting of
`benchmarks/alignment.py`, a transformer reaches 0.98.

- Convolutional encoders align too.
- An encoder that tells concepts apart better teaches more. Few images favour convolutions here; this may not hold for
  pretrained encoders.
- Which encoder is best on tweets is open. The script's help has the commands, which nobody has run.

The new layers on a convolutional encoder stay untrained in this table. If they are trained with the rest
(`--train_new_layers`), the targets of generation keep moving: F1 falls to 0.356 and 0.220 for ResNet, and to 0.257 for
ConvNeXt and 0.509 for EfficientNet (seed 0). `model.freeze_vision_encoder(new_layers=True)` freezes them. More steps
help as well: ResNet reached 1.000 after the default 450, on 2,400 pairs
(`--threads 1 --quiet --seeds 0 --vision_steps 400 --train_new_layers --encoders resnet`).
"""


UNPLACED = "generated keys get no relative position"
UNTURNED = "generated keys get no rotary position"
STATISTICS = "batch normalisation stays as it is"
NOTES = {
    "mpnet": UNPLACED,
    "deberta-v2": UNPLACED,
    "modernbert": f"{UNTURNED}, and are read by local layers too; padding isn't removed",
    "dinov3_vit": UNTURNED,
    "siglip2_vision_model": "images are brought to a square, and not to patches that keep their shape",
    **dict.fromkeys(("resnet", "regnet", "efficientnet"), STATISTICS),
    "timm_backbone": f"needs the extra `timm`; {STATISTICS}",
    "timm_wrapper": f"needs the extra `timm`; convolutional ones only; {STATISTICS}",
}
"""What else has to be known of a family."""


def table(families: Iterable[tuple[str, EncoderFamily | str]]) -> str:
    """Return the Markdown table of some families."""
    rows = ["| `model_type` | encoders | generated features | notes | tested in |", "|---|---|---|---|---|"]
    for model_type, family in families:
        if isinstance(family, str):
            name, how = family, "new layers"
        else:
            name = family.name
            how = "layer-wise, own attention class" if family.own_attention else "layer-wise"
        tested = "test_timm.py" if model_type.startswith("timm") else "test_encoder_families.py"
        rows.append(f"| `{model_type}` | {name} | {how} | {NOTES.get(model_type, '')} | `{tested}` |")
    return "\n".join(rows) + "\n"


def page() -> str:
    """Return the text of docs/reference/encoders.md."""
    tested = "Tests are in `tests/modeling_bga/encoders/`, with tiny random models.\n"
    sections = [HEAD, "## Text\n", table(TEXT_FAMILIES.items()), "## Vision transformers\n"]
    sections += [table(VISION_FAMILIES.items()), "## Convolutional vision encoders\n"]
    return "\n".join([*sections, table(BACKBONE_FAMILIES.items()), tested, TAIL])


if __name__ == "__main__":
    print(page(), end="")
