"""What was found in a file of annotated texts: counts of everything that was kept, mended or left out."""

from dataclasses import dataclass, field

from ..tags.tag_conversion import SCHEMES


_EXAMPLES = 5
"""Ids that are kept of each kind of trouble."""


@dataclass
class ConllReport:
    """What was found in a file.

    Attributes
    ----------
    path : str
        The file.
    sha256 : str
        Checksum of its bytes; public versions of the same data set differ.
    sentences, tokens, unknown_tags : int
        Tweets, words, and words without a tag.
    entities : dict of str to int
        Entities by type, after repair.
    empty_sentences, without_id : int
        Tweets with an id and no words (kept), and tweets without an id (they get "line-<number>").
    format, scheme : str
        Of the file, as `read_annotations` names it, and of its tags: the key of what `to_bio` converts; "" for spans.
    columns : int
        Of the lines of a CoNLL file; 0 of another.
    repaired_tags, placeholder_words, replaced_characters, dropped_lines : int
        Beginnings of entities (in BIOES and the like also ends) that were mended; words that were empty or white space
        and are now "\ufffd"; undecodable byte sequences that are now "\ufffd"; -DOCSTART- lines and comments ("# text =
        ..."), which are all that is ever dropped of a CoNLL file.
    troubles : dict of str to int
        What else was found, such as spans that end inside a word, and how often.
    images_found, images_missing : int
        Usable images, and tweets whose image file is not there. Both 0 if no folder was given.
    images_broken : dict of str to int
        Unusable image files by kind; one is "in a refused format" (EPS, PDF, SVG, ...) by its ending, and not opened.
    several_images : int
        Tweets with several image files (or, of a data set, a list of images), of which the first usable one is taken.
    examples : dict of str to list of str
        The first few ids by kind of trouble.
    images_checked : bool
        Whether the files were opened, or only looked for.
    """

    path: str
    sha256: str
    sentences: int = 0
    tokens: int = 0
    unknown_tags: int = 0
    entities: dict[str, int] = field(default_factory=dict)
    empty_sentences: int = 0
    without_id: int = 0
    repaired_tags: int = 0
    placeholder_words: int = 0
    replaced_characters: int = 0
    dropped_lines: int = 0
    format: str = "conll"
    scheme: str = "IOB2"
    columns: int = 0
    troubles: dict[str, int] = field(default_factory=dict)
    images_found: int = 0
    images_missing: int = 0
    images_broken: dict[str, int] = field(default_factory=dict)
    several_images: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)
    images_checked: bool = False

    def __str__(self) -> str:
        lines = [
            f"{self.path} (sha256 {self.sha256})",
            f"{self.sentences:,} tweets, {self.tokens:,} words",
            f"{sum(self.entities.values()):,} entities" + _by_kind(": {}", self.entities),
        ]
        if self.format != "conll":
            lines.insert(1, f"format: {self.format}")
        if self.columns > 2:
            lines.append(f"tags are read of lines with {self.columns} columns")
        if self.scheme not in ("", "IOB2"):
            lines.append(f"tags in the scheme {self.scheme} were converted to BIO")
        if self.images_found or self.images_missing or self.images_broken:
            lines.append(
                f"images: {self.images_found:,} found{'' if self.images_checked else ' (not opened)'}, "
                f"{self.images_missing:,} missing, {sum(self.images_broken.values()):,} broken"
                + _by_kind(" ({})", self.images_broken)
            )
        counts = {
            "words without a tag": self.unknown_tags,
            "tweets without words": self.empty_sentences,
            "tweets without an id": self.without_id,
            self.repairs: self.repaired_tags,
            "words were empty or white space and are now '\ufffd'": self.placeholder_words,
            "undecodable byte sequences were replaced by '\ufffd'": self.replaced_characters,
            "-DOCSTART- lines and comments were dropped": self.dropped_lines,
            "tweets have several images, of which the first usable one is taken": self.several_images,
        }
        lines += [f"{count:,} {what}" for what, count in counts.items() if count]
        lines += [f"{count:,} {what}{self._examples(what)}" for what, count in sorted(self.troubles.items())]
        lines += [f"{kind}{self._examples(kind)}" for kind in sorted(set(self.examples) - set(self.troubles))]
        return "\n".join(lines)

    @property
    def repairs(self) -> str:
        """What `repaired_tags` counts."""
        if len(SCHEMES.get(self.scheme, "BI")) > 2:
            return "ends of entities had no mark and were read as far as they go"
        return "tags began an entity with 'I-' and were read as 'B-'"

    def count(self, trouble: str, example: str) -> None:
        """Count a trouble, and keep the first examples of it."""
        self.troubles[trouble] = self.troubles.get(trouble, 0) + 1
        self.note(trouble, example)

    def note(self, kind: str, example: str) -> None:
        """Keep an example of a kind of trouble, if there are only a few yet."""
        examples = self.examples.setdefault(kind, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)

    def _examples(self, kind: str) -> str:
        return f", for example: {', '.join(self.examples[kind])}" if kind in self.examples else ""


def _by_kind(template: str, counts: dict[str, int]) -> str:
    """Write counts into a template, by name; nothing if there are none."""
    return template.format(", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))) if counts else ""


__all__ = ["ConllReport"]
