"""The template of the model card, as text: it has to travel with the code of a saved model, which is Python files only.

`model_card.md` at the top of the repository is the same text, for people to read; a test keeps the two equal.
"""

TEMPLATE = r"""---
{{ card_data }}
---

{{ mark }}

# {{ title }}

{% if tagger %}
This model finds named entities{% if types %} ({{ types | join(", ") }}){% endif %} in text. It is a BGA-MNER model
{%- elif classifier %}
This model classifies text ({{ labels | join(", ") }}). It is a BGA-MNER model
{%- else %}
This is the encoder of a BGA-MNER model, without tag scores
{%- endif %} (bidirectional generative alignment, [arXiv 2308.02570](https://arxiv.org/abs/2308.02570)). Such models
learn from texts with pictures to generate a picture's features from the words, and read these features when they
{{ "classify" if classifier else "tag" }}.

{% if trained_with_pictures %}
**Pictures.** It was trained on texts with pictures.
{%- elif trained_with_pictures == false %}
**Pictures.** It was trained on texts alone: no picture was used in training.
{%- else %}
**Pictures.** Whether pictures were used in training isn't recorded.
{%- endif %}
{%- if reads == "real" %} It reads the picture beside a text; for a text without one it generates the visual features.
{%- elif reads == "generated" %} To use it no picture is needed: it generates the visual features that it reads.
{%- else %} To use it no picture is needed: it reads the text alone.
{%- endif %}
{%- if text_only %} It was saved without its vision encoder, and takes no pictures.
{%- endif %}

{% for score in headline %}
{%- if classifier %}
**Accuracy {{ score.accuracy }}** on {{ score.set }}{% if score.source %} ({{ score.source }}){% endif %}.
{%- else %}
**F1 {{ score.f1 }}**{% if score.interval %} ({{ score.confidence }} interval: {{ score.interval }}){% endif %} on
{{ score.set }}{% if score.source %} ({{ score.source }}){% endif %}, strict and by entity.
{%- endif %}
{% endfor %}

{% if outdated %}
These weights were trained further after their last record. What was measured before doesn't hold for them and is left
out here.
{% elif not recorded %}
Nothing is recorded about the training of this model: neither what it was trained on, if it was, nor how well it does.
{% endif %}

## Use

With the package `bga-mner` installed:

```python
from transformers import {{ auto_class }}, AutoProcessor

import bga_mner  # registers the Auto classes

model = {{ auto_class }}.from_pretrained("{{ repository }}")
processor = AutoProcessor.from_pretrained("{{ repository }}")
{%- if tagger %}
for entity in bga_mner.predict(model, processor, {{ example }}):
    print(entity["label"], entity["word"], round(entity["score"], 2))
{%- elif classifier %}
logits = model(**processor({{ example }}, return_tensors="pt")).logits  # (1, labels)
{%- else %}
states = model(**processor({{ example }}, return_tensors="pt")).last_hidden_state  # (1, tokens, width)
{%- endif %}
```

{% if remote_code %}
Without the package, with the code that lies beside the weights (read it before you trust it):

```python
from transformers import {{ auto_class }}, AutoProcessor

model = {{ auto_class }}.from_pretrained(
    "{{ repository }}", trust_remote_code=True
)
processor = AutoProcessor.from_pretrained("{{ repository }}", trust_remote_code=True)
```
{% endif %}
{% if task and tagger %}
As a pipeline, likewise without the package:

```python
from transformers import pipeline

tagger = pipeline("{{ task }}", model="{{ repository }}", trust_remote_code=True)
print(tagger({{ example }}))
```
{% endif %}
{% if classifier %}
As a pipeline, the stock one{% if remote_code %}, likewise without the package{% endif %}:

```python
from transformers import pipeline

classify = pipeline("text-classification", model="{{ repository }}"{{ ", trust_remote_code=True" if remote_code }})
print(classify({{ example }}))
```

If it was trained with marked targets, mark what you ask about: `bga_mner.mark_target`.
{% endif %}

{% if repository == placeholder %}
`{{ placeholder }}` stands for the folder that this file is in, or its name on the Hub.
{%- endif %}
{%- if tagger or classifier %}
The Hub's hosted widget runs no custom code, so it can't show this model.
{%- endif %}

{% if data %}
## Data

| set | source | SHA-256 | sentences | words | entities |
|---|---|---|---|---|---|
{%- for row in data %}
| {{ row.set }} | {{ row.source }} | {{ row.sha256 }} | {{ row.sentences }} | {{ row.words }} | {{ row.entities }} |
{%- endfor %}

{% if rows_hashed %}
The checksum of a dataset's split is that of its rows, written as a CoNLL file by `bga_mner.write_conll`.
{% endif %}

{% if data_types %}
Entities by type:

| set | {{ data_types | join(" | ") }} |
|---|{{ "---|" * data_types | length }}
{%- for row in data if row.by_type %}
| {{ row.set }} | {{ row.by_type | join(" | ") }} |
{%- endfor %}
{% endif %}

{% if pictures %}
Pictures (one that is missing or broken is left out, and its text is kept):

| set | found | missing | broken |
|---|---|---|---|
{%- for row in pictures %}
| {{ row.set }} | {{ row.found }} | {{ row.missing }} | {{ row.broken }} |
{%- endfor %}
{% endif %}

{% for note in data_notes %}
- {{ note }}
{%- endfor %}
{% endif %}

{% if training %}
## Training

| | |
|---|---|
{%- for name, value in training %}
| {{ name }} | {{ value }} |
{%- endfor %}
{% endif %}

{% if options %}
Options of `config.json` that aren't the defaults: {{ options | join(", ") }}.
{% endif %}

{% if scores %}
## Evaluation

{% if classifier %}
| set | accuracy |
|---|---|
{%- for row in scores %}
| {{ row.set }} | {{ row.accuracy }} |
{%- endfor %}
{% else %}
An entity counts as found if its type and both its ends are right (strict, IOB2, as seqeval counts).
{%- if interval_note %} {{ interval_note }}{% endif %}

| set | precision | recall | F1 |
{%- if any_interval %} interval of F1 |{% endif %}
{%- if any_accuracy %} accuracy (words) |{% endif %}
|---|---|---|---|{% if any_interval %}---|{% endif %}{% if any_accuracy %}---|{% endif %}
{%- for row in scores %}
| {{ row.set }} | {{ row.precision }} | {{ row.recall }} | {{ row.f1 }} |
{%- if any_interval %} {{ row.interval }} |{% endif %}
{%- if any_accuracy %} {{ row.accuracy }} |{% endif %}
{%- endfor %}
{% endif %}

{% for row in scores if row.types %}
By type, on {{ row.set }}:

| type | precision | recall | F1 |{% if row.interval %} interval of F1 |{% endif %} entities |
|---|---|---|---|{% if row.interval %}---|{% endif %}---|
{%- for kind in row.types %}
| {{ kind.set }} | {{ kind.precision }} | {{ kind.recall }} | {{ kind.f1 }} |
{%- if row.interval %} {{ kind.interval }} |{% endif %} {{ kind.number }} |
{%- endfor %}
{% endfor %}

{% for note in score_notes %}
- {{ note }}
{%- endfor %}
{% endif %}

## Limits

{% if not scores %}
- How well it does has not been recorded
{%- if measured_reading %} as it is: its scores, which are left out here, were measured while it read something else
("{{ measured_reading }}")
{%- endif %}. Measure it on your own texts before you rely on it.
{%- else %}
- The scores hold for texts like those that they were measured on.
{%- endif %}
{%- if seed is defined %}
- One run with one seed ({{ seed }}): another seed gives other scores, and an interval says nothing about that.
{%- endif %}
- {{ "Labels" if classifier else "Tags" }} are as good as the annotation that they were learned from; names and what
they stand for change with time.
{%- if trained_with_pictures %}
- What it knows of a name{% if not classifier %}'s type{% endif %} it has from the texts and pictures that it saw in
training.
{%- endif %}
{%- if longest %}
- It reads {{ longest }} tokens at once
{%- if tagger %}; `bga_mner.predict` reads longer texts in overlapping windows{% endif %}.
{%- endif %}
{%- if not classifier %}
- It finds names of people, and has no notion of whose must not be collected: mind their rights.
{%- endif %}
"""

__all__ = ["TEMPLATE"]
