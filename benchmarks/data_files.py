"""What the measurements on real data read: lines of text files, and the vision states of images."""

from pathlib import Path
from typing import Any

import datasets

from bga_mner import BgaMnerProcessor, cache_vision_states
from bga_mner.configuration.errors import shown
from bga_mner.processing.images.vision_states import VISION_STATES


__all__ = ["encode_images", "read_lines"]


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Read the numbered lines of a UTF-8 file in --data_dir, without blank ones.

    Newlines alone end a line: texts may hold other separators.
    """
    if not file.is_file():
        raise ValueError(
            f"Expected {file.name} in --data_dir {shown(str(file.parent))}, got none. Name another folder."
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected UTF-8 in {shown(str(file))}, got another encoding. Convert it: iconv -t UTF-8."
        ) from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        raise ValueError(f"Expected lines of text in {shown(str(file))}, got an empty file. Fill it.")
    return lines


def encode_images(
    images: datasets.Dataset, model: Any, processor: BgaMnerProcessor, cache_dir: Path
) -> datasets.Dataset:
    """Run a frozen vision encoder once on each path of a column "image"; refuse what can't be read, cached or not."""
    states = cache_vision_states(images, model, processor, cache_dir=cache_dir)
    unread = states.data.column(VISION_STATES).is_null().to_pylist()
    broken = [path for path, is_broken in zip(images["image"], unread, strict=True) if is_broken]
    if broken:
        raise ValueError(
            f"Expected images that can be read, got {len(broken)} of {len(unread)} that can't, such as "
            f"{shown(broken[0])}. Replace them, or take out the texts that have them."
        )
    return states
