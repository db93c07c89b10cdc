"""A Trainer that leaves the model's card alone."""

from collections.abc import Sequence
from typing import Any

from transformers import Trainer
from transformers.utils import logging

from ...configuration.hub.model_card import write_model_card


logger = logging.get_logger(__name__)

__all__ = ["CardKeepingTrainer"]


class CardKeepingTrainer(Trainer):
    """The stock Trainer, except that it pushes the model's own card.

    A stock Trainer that pushes to the Hub replaces README.md by a draft of its own, which knows neither of data nor of
    images. All else is as in `transformers.Trainer`, which does just as well where nothing is pushed.

    Examples
    --------
    >>> trainer = CardKeepingTrainer(..., args=TrainingArguments(..., push_to_hub=True))  # doctest: +SKIP
    """

    def create_model_card(
        self, tags: str | Sequence[str] | None = None, model_name: str | None = None, **others: Any
    ) -> None:
        """Write the model's card, filled from `config.training_summary`; a warning names facts that belong there."""
        if not self.is_world_process_zero():
            return
        if given := sorted(key for key, value in others.items() if value is not None):
            logger.warning(
                "The model card doesn't take %s from push_to_hub: give language, license and datasets to "
                "summarize_training.",
                ", ".join(given),
            )
        config = self.accelerator.unwrap_model(self.model).config
        write_model_card(self.args.output_dir, config, self.hub_model_id, [tags] if isinstance(tags, str) else tags)
