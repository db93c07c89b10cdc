"""Load a saved model as the class that it was trained as."""

from pathlib import Path
from typing import Any

from bga_mner import BgaMnerConfig, BgaMnerForSequenceClassification, BgaMnerForTokenClassification, BgaMnerProcessor
from bga_mner.configuration.errors import listed, shown


TRAINED = {kind.__name__: kind for kind in (BgaMnerForTokenClassification, BgaMnerForSequenceClassification)}


def load_saved(name: str | Path) -> tuple[Any, BgaMnerProcessor]:
    """Load a tagger or classifier and its processor, from a folder or the Hub."""
    saved = BgaMnerConfig.from_pretrained(name).architectures or []
    kinds = [TRAINED[kind] for kind in saved if kind in TRAINED]
    if not kinds:
        raise ValueError(
            f"Expected one of {listed(TRAINED)} under 'architectures' in config.json of {shown(str(name))}, got "
            f"{listed(saved)}: another class would have weights that nobody trained. Save the trained model there."
        )
    return kinds[0].from_pretrained(name), BgaMnerProcessor.from_pretrained(name)
