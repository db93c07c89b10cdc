"""Search hyperparameters with Optuna, or repeat a training with several seeds; all other arguments are run_mner.py's.

Search, on the validation set (`pip install -e ".[sweep]"`)::

    python examples/sweep.py search --trials 20 --train_file train.txt --validation_file valid.txt \
        --image_dir images --text_model bert-base-cased --vision_model openai/clip-vit-base-patch32 --output_dir sweep

`--space` names what is searched, options of TrainingArguments or of BgaMnerConfig: `name=low..high`,
`name=low..high:log` or `name=one|other`. Seeds, with the mean and a 95 % interval of it::

    python examples/sweep.py seeds --seeds 0,1,2,3,4 --train_file train.txt ... --output_dir seeds

Either one that was killed goes on where it was: the search keeps its trials in `search.db`, and a seed that is done
is not run again, so give other settings another `--output_dir`. A search writes `search.json`, keeps no model, and
refuses `--lora_rank`. Seeds are written to `seeds.json`, and each one's run, with its model, to `seed-<seed>`.
"""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from bga_mner.examples.command_line import Parser, positive, run_main, seeds

from scipy.stats import t as student_t
from transformers import TrainingArguments

from bga_mner import BgaMnerConfig, CardKeepingTrainer, DataCollatorForMner, build_compute_metrics
from bga_mner.configuration.errors import brief, listed, shown
from bga_mner.examples import run_mner
from bga_mner.examples.fine_tuning.data import has_images, prepare_rows, read_data
from bga_mner.examples.fine_tuning.model import build_model
from bga_mner.examples.reporting import print_table


SPACE = "learning_rate=1e-5..3e-4:log,reconstruction_weight=1..30:log"


def parse_space(text: str) -> dict[str, dict[str, Any]]:
    """Read what to search: `name=low..high`, `name=low..high:log` or `name=one|other`, with commas between."""
    space: dict[str, dict[str, Any]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, values = item.partition("=")
        known = name in TrainingArguments.__dataclass_fields__ or name in BgaMnerConfig.__dataclass_fields__
        try:
            if not known:
                raise ValueError(f"no option of TrainingArguments or BgaMnerConfig is called {shown(name)}")
            if "|" in values:
                space[name] = {"choices": [_number(value) for value in values.split("|")]}
            else:
                span, _, scale = values.partition(":")
                low, high = (_number(value) for value in span.split(".."))
                if scale not in ("", "log") or isinstance(low, str) or isinstance(high, str) or low >= high:
                    raise ValueError("low and high have to be numbers, the lower one first")
                space[name] = {"low": low, "high": high, "log": scale == "log"}
        except ValueError as error:
            raise ValueError(
                f"Expected name=low..high, name=low..high:log or name=one|other in --space, got {shown(item)}: "
                f"{brief(error)}. Mend it."
            ) from error
    return space


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def suggest(trial: Any, name: str, values: Mapping[str, Any]) -> Any:
    """Sample a value; the same one every time for the same trial."""
    if "choices" in values:
        return trial.suggest_categorical(name, values["choices"])
    whole = isinstance(values["low"], int) and isinstance(values["high"], int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, **values)


def search(argv: Sequence[str], trials: int, space: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Search hyperparameters, with the arguments of run_mner.py; return the best trial and all trials."""
    import optuna

    arguments, data, training, _ = run_mner.read_arguments(list(argv))
    if arguments.lora_rank:
        raise ValueError(
            "Expected no --lora_rank in a search, which trains whole models, got one. Leave it out, or compare ranks "
            "with `seeds`, which takes it."
        )
    parts, labels = read_data(data, training.seed, endless=True)
    if not {"train", "validation"} <= set(parts):
        raise ValueError(f"Expected a training and a validation set, got {listed(parts)} only. Give both.")
    of_model = {name for name in space if name not in TrainingArguments.__dataclass_fields__}

    def model_init(trial: Any = None) -> Any:
        chosen = deepcopy(arguments)
        if trial is not None and of_model:
            sampled = [f"{name}={suggest(trial, name, space[name])}" for name in sorted(of_model)]
            chosen.config_overrides = ",".join([*filter(None, [arguments.config_overrides]), *sampled])
        return build_model(chosen, labels, has_images(parts), data.max_length)[0]

    model, processor = build_model(arguments, labels, has_images(parts), data.max_length)
    _, encoded = prepare_rows(parts, model, processor, max_length=data.max_length, cache=arguments.cache_vision_states)
    # the scores decide, and no trial is gone on from
    training.save_strategy, training.load_best_model_at_end = "no", False
    trainer = CardKeepingTrainer(
        model_init=model_init,
        args=training,
        data_collator=DataCollatorForMner(processor),
        train_dataset=encoded["train"],
        eval_dataset=encoded["validation"],
        compute_metrics=build_compute_metrics(model.config.id2label),
        preprocess_logits_for_metrics=lambda outputs, labels: outputs[1],
    )
    output = Path(training.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    storage = {"storage": f"sqlite:///{output / 'search.db'}", "study_name": "search", "load_if_exists": True}
    study = optuna.create_study(direction="maximize", **storage)
    finished = (optuna.trial.TrialState.COMPLETE,)
    done = len(study.get_trials(states=finished))
    if done < trials:
        # with another seed per resumption: a search that goes on must not repeat itself
        sampler = optuna.samplers.TPESampler(seed=training.seed + len(study.trials))
        trainer.hyperparameter_search(
            hp_space=lambda trial: {name: suggest(trial, name, space[name]) for name in sorted(set(space) - of_model)},
            compute_objective=lambda metrics: metrics["eval_f1"],
            n_trials=trials - done,
            direction="maximize",
            backend="optuna",
            sampler=sampler,
            **storage,
        )
    rows = [{"f1": trial.value, **trial.params} for trial in study.get_trials(states=finished)]
    found = {"best": max(rows, key=lambda row: row["f1"]), "trials": rows}
    (output / "search.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Return the mean, and the ends of the interval in which Student's t puts the mean of all seeds."""
    _check_seeds(values)
    mean = statistics.fmean(values)
    half = float(student_t.ppf((1 + confidence) / 2, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def _check_seeds(values: Sequence[float]) -> None:
    if len(values) < 2:
        raise ValueError(f"Expected two seeds or more for an interval, got {len(values)}. Give --seeds 0,1,2,...")


def repeat(argv: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Train with each seed, with the arguments of run_mner.py; return results by seed, and mean and interval of F1."""
    _check_seeds(seeds)
    _, _, training, _ = run_mner.read_arguments(list(argv))
    output, results = Path(training.output_dir), {}
    for seed in seeds:
        folder = output / f"seed-{seed}"
        done = folder / "results.json"
        if done.exists():
            results[seed] = json.loads(done.read_text(encoding="utf-8"))
            continue
        own = [*argv, "--seed", str(seed), "--output_dir", str(folder)]  # the last one of a flag counts
        results[seed] = run_mner.main(own)
        draft = folder / ".results.json"
        draft.write_text(json.dumps(results[seed]), encoding="utf-8")
        draft.rename(done)
    name = next((name for name in ("test_f1", "eval_f1") if all(name in found for found in results.values())), None)
    if name is None:
        raise ValueError("Expected a validation or test set with tags to score, got none. Give one.")
    mean, low, high = mean_interval([found[name] for found in results.values()])
    found = {"f1": {"of": name, "mean": mean, "low": low, "high": high}, "seeds": results}
    (output / "seeds.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the script; return what is written to the JSON file."""
    parser = Parser(__doc__, allow_abbrev=False)
    parser.add_argument("what", choices=("search", "seeds"))
    parser.add_argument("--trials", type=positive, default=20, help="number of trials")
    parser.add_argument("--space", default=SPACE, help=f"search space (default: {SPACE.replace('%', '%%')})")
    parser.add_argument(
        "--seeds", type=seeds, default="0,1,2,3,4", help="comma-separated seeds to repeat the training with"
    )
    options, rest = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    if options.what == "search":
        found = search(rest, options.trials, parse_space(options.space))
        best = sorted(found["trials"], key=lambda row: -row["f1"])[:10]
        rows = [[f"{value:.4g}" if isinstance(value, float) else value for value in row.values()] for row in best]
        print_table(f"{len(found['trials'])} trials, best first", list(found["best"]), rows)
    else:
        found = repeat(rest, options.seeds)
        summary = found["f1"]
        rows = [[seed, f"{results[summary['of']]:.4f}"] for seed, results in found["seeds"].items()]
        rows.append(["mean", f"{summary['mean']:.4f} ({summary['low']:.4f} to {summary['high']:.4f})"])
        print_table(summary["of"], ("seed", "F1"), rows)
    return found


if __name__ == "__main__":
    run_main(main)
