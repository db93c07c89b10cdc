"""Push a trained model and its processor to the Hub, with the code that loads them where this package is missing.

Look first, then push; `hf auth login` or the environment variable HF_TOKEN gives the token::

    python examples/push_to_hub.py --model_dir outputs/mner --repo_id org/bga-mner --dry_run
    python examples/push_to_hub.py --model_dir outputs/mner --repo_id org/bga-mner --private

`org` is your user name on the Hub, or an organisation that you may write to. The token needs write access. A
repository that is made without `--private` is public.

`--text_only` leaves out what only images need: vision encoder, vision branch and image processor. A student of
examples/distill.py is pushed as the plain model that it is, with its ONNX files. All files go into one commit; a
README.md in the model's folder goes along.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bga_mner.examples.command_line import Parser, run_main

import transformers
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoTokenizer, PreTrainedConfig

from bga_mner import BgaMnerConfig, BgaMnerProcessor
from bga_mner.configuration.errors import brief, listed, shown
from bga_mner.examples.saved_models import load_saved
from bga_mner.processing.distillation.student_card import with_repository


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument("--model_dir", type=Path, required=True, help="folder of a saved model and processor")
    parser.add_argument(
        "--repo_id", required=True, help="repository on the Hub, such as org/bga-mner; created if missing"
    )
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--text_only", "--text-only", action="store_true", help="leave out the vision parts")
    parser.add_argument("--dry_run", "--dry-run", action="store_true", help="list the files without pushing them")
    parser.add_argument("--revision", default="main", help="branch to push to (default: %(default)s)")
    parser.add_argument("--commit_message", default="Upload model and processor")
    return parser.parse_args(arguments)


def save(model_dir: Path, text_only: bool, folder: Path, repo_id: str) -> dict[str, int]:
    """Save model and processor as they are to be pushed; return the sizes of the files in bytes."""
    if not Path(model_dir, "config.json").is_file():
        raise ValueError(f"Expected a saved model, got {shown(str(model_dir))} without config.json. Check --model_dir.")
    written, _ = PreTrainedConfig.get_config_dict(model_dir)
    if written.get("model_type", BgaMnerConfig.model_type) != BgaMnerConfig.model_type:
        if text_only:
            raise ValueError("Expected a bga_mner model for --text_only, got a plain one, which has no vision parts.")
        save_plain(model_dir, written.get("architectures") or [], repo_id, folder)
        return _sizes(folder)
    model, processor = load_saved(model_dir)
    if text_only:
        words = {"unspaced_scripts": processor.unspaced_scripts}
        processor = BgaMnerProcessor(None, processor.tokenizer, processor.label2id, **words)
    if Path(model_dir, "README.md").is_file():
        shutil.copy(Path(model_dir, "README.md"), folder)
    model.save_pretrained(folder, text_only=text_only)
    processor.save_pretrained(folder)
    return _sizes(folder)


def save_plain(model_dir: Path, saved: Sequence[str], repo_id: str, folder: Path) -> None:
    """Save a plain tagger or classifier as it is to be pushed: weights, tokenizer, card, and ONNX files."""
    kinds = [name for name in saved if name.endswith(("ForTokenClassification", "ForSequenceClassification"))]
    if not kinds:
        raise ValueError(
            f"Expected a tagger or a classifier under 'architectures' in config.json of {shown(str(model_dir))}, got "
            f"{listed(saved)}. Save the trained model there."
        )
    getattr(transformers, kinds[0]).from_pretrained(model_dir).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model_dir).save_pretrained(folder)
    card = model_dir / "README.md"
    if card.is_file():
        text = with_repository(card.read_text(encoding="utf-8"), repo_id)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    if (model_dir / "onnx").is_dir():
        shutil.copytree(model_dir / "onnx", folder / "onnx")


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


def push(folder: Path, options: argparse.Namespace) -> str:
    """Push a folder in one commit; return the commit's address."""
    api = HfApi()
    repo_id = api.create_repo(options.repo_id, private=options.private or None, exist_ok=True).repo_id
    if options.private and not api.model_info(repo_id).private:
        raise ValueError(
            f"Expected a private repository, got {repo_id}, which is there already and public. Make it private in its "
            "settings, choose another --repo_id, or leave out --private."
        )
    if options.revision != "main":
        api.create_branch(repo_id, branch=options.revision, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo_id, folder_path=folder, commit_message=options.commit_message, revision=options.revision
    )
    return commit.commit_url


def main(arguments: list[str] | None = None) -> dict[str, int]:
    """Run the script with the arguments of the command line, or these; return the files and their sizes in bytes."""
    options = parse(arguments)
    try:
        validate_repo_id(options.repo_id)
    except ValueError as error:
        raise ValueError(
            f"Expected a repository such as org/bga-mner as --repo_id, got another: {brief(error)}. Correct it."
        ) from error
    if not options.dry_run and get_token() is None:
        raise ValueError(
            "Expected a token of the Hub, got none. Log in with `hf auth login`, set the environment variable "
            "HF_TOKEN, or see what would be pushed with --dry_run."
        )
    with TemporaryDirectory() as folder:
        sizes = save(options.model_dir, options.text_only, Path(folder), options.repo_id)
        for name, size in sizes.items():
            print(f"{size:>15,}  {name}")
        print(f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files")
        if options.dry_run:
            print(f"Nothing was pushed to {options.repo_id}: --dry_run.")
        else:
            try:
                print(f"Pushed: {push(Path(folder), options)}")
            except HfHubHTTPError as error:
                raise ValueError(
                    f"Expected a Hub that takes {shown(options.repo_id)}, got: {brief(error)}. Check "
                    "--repo_id, and that the token may write there: `hf auth whoami`."
                ) from error
    return sizes


if __name__ == "__main__":
    run_main(main)
