"""Show what a model aligned as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from .alignment import WHOLE, Alignment, EntityMatch, runs_right_to_left
from .pictures import load_picture


LONGEST_SIDE = 1024  # of an embedded picture, in pixels
# Colours of similarity -1, 0 and 1; the page's scale has the same.
SCALE = ((59, 76, 192), (221, 221, 221), (180, 4, 38))

# No script, no form and no address: whatever stands in the texts, the page can load and send nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --faint: #6a6a6a; --page: #fff; --line: #c4c4c4; --kept: #dbe7f6;
  --own: #f6d998; --focus: #1f5fbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --faint: #a0a0a0; --page: #17181a; --line: #4b4d52;
  --kept: #2b3f5c; --own: #6b5013; --focus: #8ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 0 0 .75rem; overflow-wrap: anywhere; unicode-bidi: isolate; }
.pair { border-top: 1px solid var(--line); padding: 1rem 0; }
.pair > input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.pair > label { display: inline-block; max-width: 100%; margin: 0 .3rem .4rem 0; padding: .2rem .7rem; cursor: pointer;
  border: 1px solid var(--line); border-radius: 1rem; overflow-wrap: anywhere; }
.pair > label b { font-size: .75em; padding-inline-start: .3em; }
.pair > label:hover { border-color: var(--focus); }
.pair > input:checked + label { background: var(--ink); color: var(--page); border-color: var(--ink); }
.pair > input:focus-visible + label { outline: 3px solid var(--focus); outline-offset: 2px; }
.pair > label.entity { border-style: dashed; }
.body { display: grid; grid-template-columns: minmax(14rem, 26rem) minmax(0, 1fr); gap: .5rem 1.5rem; margin-top: .4rem;
  align-items: start; }
@media (max-width: 45rem) { .body { grid-template-columns: minmax(0, 1fr); } }
.frame { position: relative; overflow: hidden; max-width: 100%; border: 1px solid var(--line); background: #fff; }
.frame img { display: block; width: 100%; height: auto; }
.small { image-rendering: pixelated; }
.frame svg { position: absolute; display: none; }
.frame svg.part { outline: 1px dotted #000; }
.pair > input.entity:checked ~ .body img { filter: grayscale(1); opacity: .6; }
rect { pointer-events: all; fill: none; vector-effect: non-scaling-stroke; }
rect:hover { stroke: #000; stroke-width: 2; }
.dropped-patch { fill: url(#veil); }
.best { stroke: #000; stroke-width: 2; stroke-dasharray: 4 2; }
.view { display: none; }
.view p { margin: 0 0 .6rem; overflow-wrap: anywhere; }
.tokens { display: flex; flex-wrap: wrap; gap: .3rem; }
.word { display: inline-flex; flex-wrap: wrap; max-width: 100%; }
.token { unicode-bidi: isolate; overflow-wrap: anywhere; min-width: 1ch; padding: 0 .3rem; background: var(--kept);
  border: 1px solid var(--line); white-space: pre-wrap; }
.own { background: var(--own); font-weight: 600; }
.dropped { background: none; color: var(--faint); text-decoration: line-through; font-weight: 400; }
.token:hover { border-color: var(--focus); }
.special { font-size: .8em; align-self: center; }
.scale { display: inline-block; vertical-align: middle; width: 9rem; height: .9rem; border: 1px solid var(--line);
  background: linear-gradient(90deg, SCALE); }
.veil { display: inline-block; vertical-align: middle; width: 2.2rem; height: .9rem; border: 1px solid var(--line);
  background: repeating-linear-gradient(135deg, #fff 0 3px, #777 3px 4px); }
.note { color: var(--faint); font-size: .9rem; margin: .3rem 0; }
summary { cursor: pointer; width: max-content; }
.numbers { overflow-x: auto; max-height: 24rem; margin-top: .4rem; }
table { border-collapse: collapse; font: .75rem/1.3 ui-monospace, monospace; }
td, th { padding: .1rem .35rem; text-align: right; border: 1px solid var(--line); font-weight: normal; }
th { color: var(--faint); }
"""


def alignment_html(alignments: Sequence[tuple[Alignment, Any]]) -> str:
    """Show alignments as one HTML page: no script, nothing to load, pictures inside.

    Each pair has a choice (radio buttons, so that arrow keys work) of its stages and its entities. A stage shows the
    tokens and patches that it keeps; an entity shows how similar each patch is to what its tokens generate. Pointing at
    a patch or a token says what it is; the similarities also stand in a table.

    Parameters
    ----------
    alignments : sequence of (Alignment, picture)
        Alignments with their pictures: whatever `load_picture` takes. Those of more than 1,024 pixels a side are
        scaled down; others are embedded as they are.

    Returns
    -------
    str
        The page, to be written as UTF-8.

    Raises
    ------
    ValueError
        If there is nothing to show, or a picture can't be used.
    """
    if not alignments:
        raise ValueError("Expected at least one alignment to show, got none.")
    most_views = max(len(alignment.patch_keep) + len(alignment.matches) for alignment, _ in alignments)
    pairs = "\n".join(
        _pair(number, alignment, load_picture(image)) for number, (alignment, image) in enumerate(alignments)
    )
    cropped = any(alignment.seen != WHOLE for alignment, _ in alignments)
    dotted = " A dotted frame shows what the model sees of a picture." if cropped else ""
    colours = ", ".join(f"rgb{colour}" for colour in SCALE)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What the model aligned</title>
<style>{STYLE.replace("SCALE", colours)}{_choices(most_views)}</style>
</head>
<body>
<svg width="0" height="0" style="position: absolute" aria-hidden="true"><defs>
<pattern id="veil" width=".25" height=".25" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
<path d="M0 0H.25V.25H0Z" fill="#fff" fill-opacity=".82"/><path d="M0 0V.25" stroke="#555" stroke-width=".06"/>
</pattern></defs></svg>
<header>
<h1>What the model aligned</h1>
<p class="note">Choose a stage to see what it keeps: <span class="token">kept</span>
<span class="token own">of an entity</span> <span class="token dropped">dropped</span>, dropped patches
<span class="veil"></span>. Choose an entity to see the cosine similarity of each patch to the visual features that its
words generate: -1 <span class="scale"></span> 1; the best patch has a dashed outline.{dotted}
Point at a patch for its number. Tab goes to the next pair, arrow keys to the next choice.</p>
</header>
<main>
{pairs}
</main>
</body>
</html>
"""


def _choices(most_views: int) -> str:
    """Write the rules by which the button that is checked shows its view: the third one the third view, and so on."""
    rules = []
    for number in range(1, most_views + 1):
        chosen = f".pair > input:nth-of-type({number}):checked ~ .body"
        rules.append(f"{chosen} .frame > svg:nth-of-type({number}), {chosen} .views > .view:nth-of-type({number})")
    return f"{', '.join(rules)} {{ display: block; }}\n"


def _pair(number: int, alignment: Alignment, image: Image.Image) -> str:
    """Show a sentence with its picture: buttons, and for each of them a layer on the picture and a view of tokens."""
    buttons: list[str] = []
    layers: list[str] = []
    views: list[str] = []
    everywhere = {place for match in alignment.matches for place in match.tokens}
    for stage, (patches, tokens) in enumerate(zip(alignment.patch_keep, alignment.text_keep, strict=True)):
        buttons.append(_button(number, len(buttons), f"stage {stage + 1}"))
        says = f"Stage {stage + 1} keeps {patches.sum()} of {patches.size} patches"
        layers.append(_kept_layer(patches, alignment, says))
        says = f"{says} and {tokens.sum()} of {tokens.size} tokens."
        views.append(f'<div class="view"><p>{says}</p>{_tokens(alignment, tokens, everywhere)}</div>')
    for match in alignment.matches:
        name = f"<bdi>{_text(match.phrase)}</bdi> <b>{_text(match.label)}</b>"
        buttons.append(_button(number, len(buttons), name, "entity"))
        says = f"Similarity of the patches to what “{match.phrase}” generates"
        layers.append(_similarity_layer(match, alignment, says))
        views.append(_match_view(match, alignment))
    if not alignment.matches:
        buttons.append('<span class="note">The model finds no entity in this sentence.</span>')
    small = ' class="small"' if max(image.size) < 200 else ""
    picture = f'<img{small} alt="The picture of this sentence" src="{_data_uri(image)}">'
    direction = "rtl" if alignment.right_to_left else "ltr"
    return f"""<section class="pair" aria-labelledby="pair{number}">
<h2 id="pair{number}" dir="{direction}">{_text(" ".join(alignment.words))}</h2>
{"".join(buttons)}
<div class="body"><div class="frame">{picture}{"".join(layers)}</div>
<div class="views">{"".join(views)}</div></div>
</section>"""


def _button(pair: int, view: int, name: str, kind: str = "stage") -> str:
    checked = " checked" if view == 0 else ""
    return (
        f'<input type="radio" class="{kind}" name="pair{pair}" id="pair{pair}view{view}"{checked}>'
        f'<label class="{kind}" for="pair{pair}view{view}">{name}</label>'
    )


def _layer(alignment: Alignment, shape: tuple[int, ...], says: str, cells: str) -> str:
    """Lay a grid of patches on the part of the picture that they cover."""
    kind = "" if alignment.seen == WHOLE else ' class="part"'
    left, top, right, bottom = (100 * share for share in alignment.seen)
    return (
        f'<svg{kind} role="img" aria-label="{_text(says)}" viewBox="0 0 {shape[1]} {shape[0]}" '
        f'preserveAspectRatio="none" style="left: {left:.3f}%; top: {top:.3f}%; width: {right - left:.3f}%; '
        f'height: {bottom - top:.3f}%">{cells}</svg>'
    )


def _cell(row: int, column: int, says: str, look: str) -> str:
    return (
        f'<rect x="{column}" y="{row}" width="1" height="1"{look}>'
        f"<title>row {row + 1}, column {column + 1}: {says}</title></rect>"
    )


def _kept_layer(patches: np.ndarray, alignment: Alignment, says: str) -> str:
    cells = (
        _cell(row, column, "kept" if kept else "dropped", "" if kept else ' class="dropped-patch"')
        for (row, column), kept in np.ndenumerate(patches)
    )
    return _layer(alignment, patches.shape, says, "".join(cells))


def _similarity_layer(match: EntityMatch, alignment: Alignment, says: str) -> str:
    best = int(match.similarity.argmax())
    cells = []
    for place, ((row, column), value) in enumerate(np.ndenumerate(match.similarity)):
        # as a style, since the page's own styles override attributes
        look = f' style="fill: {_colour(float(value))}; fill-opacity: .6"'
        cells.append(_cell(row, column, f"similarity {value:.2f}", look + ' class="best"' * (place == best)))
    return _layer(alignment, match.similarity.shape, says, "".join(cells))


def _colour(value: float) -> str:
    """Mix the colour of a similarity.

    Examples
    --------
    >>> _colour(-1.0), _colour(0.0), _colour(1.0)
    ('rgb(59, 76, 192)', 'rgb(221, 221, 221)', 'rgb(180, 4, 38)')
    """
    strength = min(1.0, abs(value))
    end = SCALE[2] if value > 0 else SCALE[0]
    mixed = (round(middle + strength * (full - middle)) for middle, full in zip(SCALE[1], end, strict=True))
    return f"rgb({', '.join(map(str, mixed))})"


def _match_view(match: EntityMatch, alignment: Alignment) -> str:
    """Say how similar the patches are, show the entity among the tokens, and give all numbers in a table."""
    row, column = np.unravel_index(int(match.similarity.argmax()), match.similarity.shape)
    head = "".join(f'<th scope="col">{number + 1}</th>' for number in range(match.similarity.shape[1]))
    rows = "".join(
        f'<tr><th scope="row">{number + 1}</th>{"".join(f"<td>{value:.2f}</td>" for value in line)}</tr>'
        for number, line in enumerate(match.similarity)
    )
    return (
        f'<div class="view"><p>Similarity of the patches to what <b><bdi>{_text(match.phrase)}</bdi></b> '
        f"({_text(match.label)}) generates: from {match.similarity.min():.2f} to {match.similarity.max():.2f}, the "
        f"highest in row {row + 1}, column {column + 1}.</p>"
        f"{_tokens(alignment, None, set(match.tokens))}"
        f'<details class="note"><summary>Similarities as a table</summary><div class="numbers" tabindex="0" '
        f'role="region" aria-label="Similarities of rows and columns of patches"><table>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div></details></div>"
    )


def _tokens(alignment: Alignment, kept: np.ndarray | None, own: set[int]) -> str:
    """Show the tokens, those of a word without gaps; `kept` is None where keeping is not what is shown."""
    words = []
    for group in alignment.token_groups():
        shown = []
        for place in group:
            kinds = ["token", *["own"] * (place in own), *["special"] * (alignment.word_ids[place] is None)]
            fate = ""
            if kept is not None:
                fate = "kept" if kept[place] else "dropped"
                kinds += ["dropped"] * (not kept[place])
            # for those who can't see the line through it
            name = "s" if fate == "dropped" else "span"
            title = f' title="{fate}"' if fate else ""
            shown.append(f'<{name} class="{" ".join(kinds)}"{title}>{_text(alignment.tokens[place])}</{name}>')
        direction = "rtl" if runs_right_to_left("".join(alignment.tokens[place] for place in group)) else "ltr"
        words.append(f'<span class="word" dir="{direction}">{"".join(shown)}</span>')
    return f'<div class="tokens" dir="{"rtl" if alignment.right_to_left else "ltr"}">{"".join(words)}</div>'


def _text(text: str) -> str:
    """Escape a text for HTML, in attributes too; what UTF-8 can't hold becomes a question mark."""
    return escape(text.encode("utf-8", "replace").decode().replace("\0", "\ufffd"))


def _data_uri(image: Image.Image) -> str:
    """Write a picture as PNG, which loses nothing, into an address."""
    image = image.copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    content = BytesIO()
    image.save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


__all__ = ["alignment_html"]
