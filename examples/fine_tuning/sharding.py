"""What a training needs whose weights are spread over processes, as by FSDP."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from bga_mner.modeling_bga.encoders.encoder import only_new_layers_trained


def image_shape(model: Any, cached: bool) -> tuple[int, int, int] | None:
    """Return the shape of an image, or of what is cached of it, for a model whose weights are spread over processes.

    Without it processes would run different layers, and wait for each other for ever.
    """
    config = model.config
    if config.text_only:
        return None
    if cached and only_new_layers_trained(model.bga_mner.vision_encoder):
        return 1, config.num_vision_tokens, config.vision_config.feature_channels
    if cached:
        return config.num_stages + 1, config.num_vision_tokens, config.vision_config.hidden_size
    return 3, config.image_size, config.image_size


@torch.no_grad()
def complete_states(optimizer: torch.optim.Optimizer) -> None:
    """Give each trained weight a state, and change none.

    What never gets a gradient has no state, such as the last vision layer where no text reads its output. FSDP loads a
    checkpoint only if it has a state of all that is trained.
    """
    groups = optimizer.param_groups
    weights = [weight for group in groups for weight in group["params"]]
    gradients, rates = [weight.grad for weight in weights], [group["lr"] for group in groups]
    for weight in weights:
        weight.grad = None if optimizer.state.get(weight) else torch.zeros_like(weight)
    for group in groups:
        group["lr"] = 0.0
    optimizer.step()
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate


class CompleteStatesCallback(TrainerCallback):
    """Call `complete_states` before each checkpoint."""

    def on_train_begin(self, *given: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """Refuse an optimizer without states."""
        if isinstance(optimizer.optimizer, torch.optim.SGD) and not optimizer.optimizer.defaults["momentum"]:
            raise ValueError(
                "Expected an optimizer with a state for each weight, since FSDP can't load a checkpoint without, got "
                "SGD without momentum. Pass --optim adamw_torch, or --optim_args momentum=0.9."
            )

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Complete the states if the Trainer is about to save, or to find out whether it saves the best weights."""
        saves_best = args.save_strategy == SaveStrategy.BEST and control.should_evaluate
        if control.should_save or saves_best:
            complete_states(optimizer.optimizer)  # in Accelerate's

    on_epoch_end = on_step_end
