"""Invented names, and sentences about them whose words say nothing about the type of the name."""

import itertools
import random
from collections.abc import Iterable, Sequence

from bga_mner.examples.synthetic.drawings import ENTITY_TYPES


__all__ = ["Row", "invent_names", "text_rows"]

Row = dict[str, object]


def _choices(text: str) -> tuple[str, ...]:
    """Split a list written with bars, which may run over several lines."""
    return tuple(" ".join(choice.split()) for choice in text.split("|"))


_ONSETS = _choices("b|d|f|g|k|l|m|n|p|r|s|t|v|z")
_RARE_ONSETS = _choices("zv|vr|dz|kv|zh|dv|gv|mz|bz|vl")  # in each name word, and in no ordinary one
_VOWELS = _choices("a|e|i|o|u|ai|ou")
_INNER_CODAS, _LAST_CODAS = _choices("|||n|r|l"), _choices("||n|r|k|l|sk|nd|t")
# Words of a name and their case. Each half of each type cycles through this list: form says nothing about the type.
_NAME_FORMS = _choices("T|T|TT|l|T|TT|U|T|ll|T|Tl|l|TT|T|UU")


def _name_word(rng: random.Random, case: str, used: set[str]) -> str:
    word = ""
    while not word or word in used:
        # A word belongs to one name only, whatever its case: sharing one would give a label away.
        codas = [rng.choice(_INNER_CODAS) for _ in range(rng.choice((1, 1, 2)))] + [rng.choice(_LAST_CODAS)]
        onsets = [rng.choice(_ONSETS) for _ in codas]
        onsets[rng.randrange(len(codas))] = rng.choice(_RARE_ONSETS)
        word = "".join(onset + rng.choice(_VOWELS) + coda for onset, coda in zip(onsets, codas, strict=True))
    used.add(word)
    return {"T": word.capitalize(), "U": word.upper(), "l": word}[case]


def invent_names(
    seed: int, names_per_type: int, kinds: Sequence[str] = ENTITY_TYPES, others: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """Return name -> type for the labelled and for the never labelled names; the types alternate in both.

    No word is one of `others`, which are names, too.
    """
    rng, used = random.Random(f"names-{seed}"), {word.lower() for name in others for word in name.split()}
    halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for half, count in zip(halves, (names_per_type - names_per_type // 2, names_per_type // 2), strict=True):
        for i, kind in itertools.product(range(count), kinds):
            form = _NAME_FORMS[i % len(_NAME_FORMS)]
            half[" ".join(_name_word(rng, case, used) for case in form)] = kind
    return halves


# All words are separated by blanks. They hold no inner punctuation, so that BERT's pre-tokeniser keeps them whole.
_SLOTS = {
    "adj": _choices("great|lovely|weird|amazing|huge|quiet|perfect|funny|wild|lazy|bright|strange"),
    "adv": _choices("always|really|still|never|just|kinda|definitely|probably"),
    "verb": _choices("love|miss|remember|like|follow|adore|ignore|draw|recommend"),
    "thing": _choices("coffee|music|rain|pizza|sleep|sunshine|cake|homework|popcorn|laundry|silence|traffic"),
    "time": _choices("today|tonight|again|this morning|right now|all week|this Summer|on Friday|in May"),
    "day": _choices("Monday|Friday|Sunday|weekend|morning|evening|Christmas|holiday"),
    "who": _choices("my sister|my boss|a friend|Grandma|everyone|the neighbour|Dad"),
    "tag": _choices("ThrowbackThursday|nofilter|Love|mood|photo|WOW|goals|Friday|memories|Blessed|weekend"),
    "emoji": _choices("😂|❤|🔥|😍|🙌|😭"),
}
_CORES = _choices("""{adv} thinking about {name} {time} | {name} was {adj} {time} | i {verb} {name} so much
    | nobody talks about {name} enough | cannot stop looking at {name} | no {thing} without {name} | look , {name} !
    | {name} again , and {who} said it was {adj} | who else can {verb} {name} ? | finally saw {name} {time}
    | {who} {adv} mentioned {name} | {name} looks {adj} in this picture | here is {name} , {adj} and {adj}
    | more {thing} , more {name} | we need to talk about {name} {time} | this is {name} on a {adj} {day}
    | took a {adj} picture of {name} {time} | {thing} and {name} , what a {adj} {day} | there is only one {name}
    | the most {adj} photo of {name} you will see {time} | it is all about {name} {time} | {name} is {adj}
    | {who} keeps asking me about {name} | {verb} {name} or {verb} {thing} ? | {who} and i {adv} {verb} {name}
    | not sure what to say about {name} , {adj} {thing} maybe | {thing} , {thing} and {name} {time}
    | {name} makes {who} happy | {name} , {adv} {adj} | {name} > {thing} | {name} every {day}""")
_OPENERS = _choices("""|||||| RT : | lol | omg , | BREAKING : | good morning ! | ok so | {day} mood : | well ,
    | happy {day} {who} . | # {tag} | {emoji} | {adj} {day} ! | Just In : | Note to self : | {who} : " hi " ;""")
_TAILS = _choices("""||| ! | . | … | ! ! | {emoji} | {emoji} {emoji} | lol | # {tag} | # {tag} # {tag} | via {who}
    | ( photo by {who} ) | - via my Phone | . {who} will {verb} this | . Best {day} ever ! | . {adj} {thing} {time}""")
_CLAUSES_BEFORE = _choices("""after two {adj} hours of waiting for {who} , | while {who} was busy with the {thing} ,
    | before the {adj} meeting on {day} , | since the bus was late and the {thing} was {adj} ,
    | even if {who} does not like {thing} at all , | with no sleep and too much {thing} {time} ,
    | now that the Internet is back {time} , | you can {verb} {thing} as much as you like , but""")
_CLAUSES_AFTER = _choices(""", and my phone is nearly dead {time} | because the {thing} here is {adv} cold
    | , while {who} forgot the keys {time} | although {who} would rather {verb} some {thing}
    | , but first we have to finish the {adj} {thing} | , so please send {thing} and a {adj} blanket
    | . By the way , the {day} sale was {adv} {adj} | , which {who} told me over {thing} on {day}""")
# The words that may be shouted: few, so that each shouted form is seen often enough to be an ordinary word.
_SHOUTED = _choices("so|really|always|never|love|great|amazing|not|again|finally|the|this")


def _sentence(rng: random.Random, name: str, kind: str, clauses: bool) -> tuple[list[str], list[str]]:
    """Return the words of one sentence about `name` and their BIO tags. No choice here depends on the type."""
    parts = [rng.choice(_OPENERS), rng.choice(_CORES), rng.choice(_TAILS)]
    if clauses:
        before, after = rng.choice(((True, False), (False, True), (True, True)))
        parts[1:1] = [rng.choice(_CLAUSES_BEFORE)] if before else []
        parts[-1:-1] = [rng.choice(_CLAUSES_AFTER)] if after else []
    words: list[str] = []
    for word in " ".join(parts).split():
        words += rng.choice(_SLOTS[word[1:-1]]).split() if word[1:-1] in _SLOTS else [word]
    words = [word.upper() if word in _SHOUTED and rng.random() < 0.2 else word for word in words]
    if rng.random() < 0.6:
        # Never touches a name: "{name}" has no case, and a name keeps its own case wherever it stands.
        words[0] = words[0][0].upper() + words[0][1:]
    at, name_words, tags = words.index("{name}"), name.split(), ["O"] * len(words)
    tags[at : at + 1] = [f"B-{kind}", *[f"I-{kind}"] * (len(name_words) - 1)]
    words[at : at + 1] = name_words
    return words, tags


def text_rows(part: str, seed: int, names: dict[str, str], n: int, clauses: bool, seen: set[str]) -> list[Row]:
    """Write `n` sentences that are not in `seen`, every name as often as the others (up to one)."""
    rng = random.Random(f"texts-{seed}-{part}")
    rows: list[Row] = []
    for i, (name, kind) in enumerate(itertools.islice(itertools.cycle(names.items()), n)):
        tokens, tags = _sentence(rng, name, kind, clauses)
        while " ".join(tokens) in seen:
            tokens, tags = _sentence(rng, name, kind, clauses)
        seen.add(" ".join(tokens))
        rows.append({"id": f"{part}-{i:05d}", "tokens": tokens, "ner_tags": tags, "kind": kind})
    return rows
