"""A BERT-style tokenizer for the words of a corpus, built in a moment and without a download."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


__all__ = ["build_tokenizer"]


def build_tokenizer(sentences: Iterable[Sequence[str]], model_max_length: int = 128) -> PreTrainedTokenizerFast:
    """Build a cased BERT-style tokenizer in which every word of `sentences` is one token.

    Other words fall back to single characters (printable ASCII, and what occurs in `sentences`). The vocabulary does
    not depend on the order of the sentences. `save_pretrained` and `AutoTokenizer` restore it from a folder.
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    splitter = pre_tokenizers.BertPreTokenizer()
    distinct = {word for sentence in sentences for word in sentence}
    words = {piece for word in distinct for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(word))}
    characters = {chr(code) for code in range(33, 127)}.union(*words)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = characters | {f"##{character}" for character in characters} | words
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(pieces - set(special))])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, splitter, decoders.WordPiece(cleanup=False)
    backend.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = {f"{token[1:-1].lower()}_token": token for token in special}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=model_max_length, **names)
