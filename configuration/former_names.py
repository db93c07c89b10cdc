"""Words and defaults of release 0.1, in files that it saved. Nothing else knows them."""

from collections.abc import Mapping
from typing import Any


_OLD_VALUES = {"loss_stages": {"drawn": "sampled"}}
# Files hold what differs from the defaults of their time.
_OLD_DEFAULTS = {
    "visual_target": "last",
    "context_hiding_probability": 0.0,
    "gate_initial_bias": -4.0,
    "reconstruction_weight": 1.0,
    "cycle_weight": 1.0,
    "loss_stages": "all",
    "generators_learn_from_labels": True,
    "align_last_states": False,
    "replaced_entities_read": "real",
}
_OLD_SUMMARY_KEYS = {"trained_with_pictures": "trained_with_images"}
_OLD_DATA_KEYS = {"pictures": "images"}


def in_todays_words(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a `config.json` holds in the words of today; what isn't as it should be is left to the checks.

    What it leaves out, because it once was the default, is filled in.

    Examples
    --------
    >>> in_todays_words({"loss_stages": "drawn"})["loss_stages"]
    'sampled'
    >>> in_todays_words({"training_summary": {"data": {"train": {"pictures": {"found": 3}}}}})["training_summary"]
    {'data': {'train': {'images': {'found': 3}}}}
    >>> in_todays_words({})["visual_target"]
    'last'
    """
    values = _OLD_DEFAULTS | dict(saved)
    for name, words in _OLD_VALUES.items():
        if isinstance(old := values.get(name), str):
            values[name] = words.get(old, old)
    summary = values.get("training_summary")
    if isinstance(summary, Mapping):
        summary = _renamed(summary, _OLD_SUMMARY_KEYS)
        if isinstance(data := summary.get("data"), Mapping):
            summary["data"] = {
                part: _renamed(facts, _OLD_DATA_KEYS) if isinstance(facts, Mapping) else facts
                for part, facts in data.items()
            }
        values["training_summary"] = summary
    return values


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


__all__ = ["in_todays_words"]
