"""The whole forward of the tagger, training and evaluation, written out once more: slow, in float64, and to be read.

It is written from the paper's equations (arXiv 2308.02570) and from what the configuration's documentation says of each
option, and reads a `state_dict()` and a configuration: nothing of the model's code is called. Sentences are gone
through one by one and hold no padding, images likewise; stages, heads, and tags are loops. Where the model draws at
random, so does this, from the same seed and in the same order (see [`Noise`]); dropout has to be 0.

Everything is differentiable where the model is, and detached where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from reference_encoders import (
    Read,
    Weights,
    attention,
    bert_layer,
    embed_bert,
    embed_image,
    gelu,
    layer_norm,
    linear,
    normalize,
    vision_final_norm,
    vision_layer,
)
from torch import Tensor

from bga_mner import BgaMnerConfig


class Noise:
    """What a training step draws, for the whole batch, padding included, as the model does.

    In this order: sentences whose entities are replaced, and the tokens in their place; sentences whose words are
    hidden, the share that is, and which of them; the samplers' Gumbel noise, stage by stage, of the texts and then of
    the images (of the images first, if their layers read generated text); the stage whose losses each pair is trained
    on.
    """

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)

    def uniform(self, batch: int) -> Tensor:
        return torch.rand(batch)

    def tokens(self, input_ids: Tensor, vocabulary: int) -> Tensor:
        return torch.randint_like(input_ids, vocabulary)

    def gumbel(self, stages: int, batch: int, length: int) -> list[Tensor]:
        """One tensor (batch, length, 2) a stage: the noise of keeping and of dropping each position."""
        return [-torch.empty(batch, length, 2).exponential_().log().double() for _ in range(stages)]

    def stages(self, stages: int, batch: int) -> list[int]:
        return torch.randint(stages, (batch,)).tolist()


@dataclass
class Sentence:
    """A sentence without its padding, with all that the stages make of it."""

    places: Tensor  # of its tokens in the batch
    embedded: Tensor
    beside_image: bool  # has an image
    aligned: bool  # ... that shows what its words say
    states: list[Tensor] = field(default_factory=list)  # that enter the stages, (length, width)
    keep: list[Tensor] = field(default_factory=list)  # (length)
    generated: list[Tensor] = field(default_factory=list)  # visual features, (vision length, vision width)
    last: Any = None
    last_of_true_words: Any = None  # before entities are replaced


@dataclass
class Image:
    """An image, with all that the stages make of it."""

    states: list[Tensor] = field(default_factory=list)
    keep: list[Tensor] = field(default_factory=list)
    generated: dict[int, Tensor] = field(default_factory=dict)  # by stage, if not for all: (sentence's length, width)
    last: Any = None
    match: Any = None


class Reference:
    """The forward of a tagger.

    Parameters
    ----------
    config : BgaMnerConfig
        Of the model.
    weights : dict of str to Tensor
        Its state dict, in float64.
    training : bool
        Whether to compute what a training step does.
    """

    def __init__(self, config: BgaMnerConfig, weights: dict[str, Tensor], training: bool) -> None:
        self.config, self.training, self.stages = config, training, config.num_bga_layers
        self.head = Weights(weights)
        self.base = self.head["bga_mner"]
        self.text, self.vision = self.base["text_encoder"], self.base["vision_encoder"]
        self.text_branch, self.vision_branch = self.base["text_branch"], self.base["vision_branch"]
        self.vision_reads = config.hybrid_attention == "both" and config.use_image_to_text
        self.text_reads = config.hybrid_attention != "none" and (
            config.use_text_to_image or config.visual_source == "real"
        )
        self.samples_texts = config.use_context_sampler and config.use_text_to_image

    def __call__(self, batch: dict[str, Any], seed: int) -> dict[str, Any]:
        """Compute what the model's output holds; what belongs to a sentence is a list over sentences."""
        config, noise = self.config, Noise(seed)
        labels, pixels = batch.get("labels"), batch.get("pixel_values")
        count, length = batch["attention_mask"].shape
        replaced_ids, chosen = self._replace_entities(batch, noise)
        teaches = config.replaced_entities_read == "real"
        read_mask = self._hide_context(batch, noise)

        has_vision = pixels is not None
        vision_noise: list[Tensor] = []
        text_noise: list[Tensor] = []
        samples_images = self.training and config.use_context_sampler and config.use_image_to_text
        vision_length = config.num_vision_tokens
        if has_vision and self.vision_reads and samples_images:
            vision_noise = noise.gumbel(self.stages, count, vision_length)
        if self.training and self.samples_texts and (has_vision or self._reads(batch.get("visual_source"))):
            text_noise = noise.gumbel(self.stages, count, length)
        if has_vision and not self.vision_reads and samples_images:
            vision_noise = noise.gumbel(self.stages, count, vision_length)
        sampled = None
        if has_vision and self.training and config.loss_stages == "sampled" and not self.vision_reads:
            sampled = noise.stages(self.stages, count)

        sentences: list[Sentence] = []
        images: list[Image] = []
        for row in range(count):
            beside_image = has_vision and bool(batch["image_mask"][row])
            hidden = bool(chosen[row]) and teaches
            ids = replaced_ids if hidden else batch.get("input_ids")
            places, embedded = read_mask[row].nonzero().squeeze(1), self._embed(batch, ids, row, read_mask)
            sentence = Sentence(places, embedded, beside_image, beside_image and not hidden)
            sentences.append(sentence)
            if has_vision:
                shown = pixels[row].double() if beside_image else torch.zeros_like(pixels[row]).double()
                images.append(self._look(shown, len(sentence.places), [stage[row] for stage in vision_noise]))
        self._measure(images, [sentence.beside_image for sentence in sentences])
        for row, sentence in enumerate(sentences):
            hidden = bool(chosen[row]) and teaches
            image = images[row] if images else None
            self._read_text(sentence, image, hidden, batch.get("visual_source"), [n[row] for n in text_noise])
            if image is not None:
                only = None if sampled is None else sampled[row]
                self._finish_image(sentence, image, [n[row] for n in vision_noise], only)
            if chosen[row] and not teaches:
                embedded = self._embed(batch, replaced_ids, row, read_mask)
                sentence.last = self._read_again(sentence, embedded, self._reads(batch.get("visual_source")))

        parts: dict[str, Any] = {"crf_loss": None, "reconstruction_loss": None, "cycle_loss": None, "keep_loss": None}
        if has_vision:
            parts |= self._alignment_losses(sentences, images)
        emissions = [linear(self.head["classifier"], sentence.last) for sentence in sentences]
        crf = ReferenceCrf(config, self.head["crf"])
        if labels is not None:
            known = [labels[row][sentence.places].tolist() for row, sentence in enumerate(sentences)]
            parts["crf_loss"] = sum(map(crf.loss, emissions, known)) / count
        factors = (1.0, config.reconstruction_weight, config.cycle_weight, config.keep_budget_weight)
        summands = [factor * part for factor, part in zip(factors, parts.values(), strict=True) if part is not None]
        return parts | {
            "loss": sum(summands) if summands else None,
            "sentences": sentences,
            "images": images,
            "emissions": emissions,
            "logits": emissions if self.training else [crf.log_marginals(scores) for scores in emissions],
            "predictions": None if self.training else [crf.best_path(scores) for scores in emissions],
        }

    def _replace_entities(self, batch: dict[str, Any], noise: Noise) -> tuple[Tensor | None, Tensor]:
        """Hide the entities of some labelled sentences behind random tokens."""
        config, labels = self.config, batch.get("labels")
        count = len(batch["attention_mask"])
        nobody = torch.zeros(count, dtype=torch.bool)
        if not self.training or labels is None or config.entity_replacement_probability == 0:
            return None, nobody
        outside = config.label2id.get("O", -100)
        chosen = noise.uniform(count) < config.entity_replacement_probability
        for row in range(count):
            if all(label in (-100, outside) for label in labels[row].tolist()):
                chosen[row] = False
        if config.replaced_entities_read == "real":
            if batch.get("pixel_values") is None:
                return None, nobody
            chosen = chosen & batch["image_mask"]
        random_ids = noise.tokens(batch["input_ids"], config.text_config.vocab_size)
        entity = (labels != -100) & (labels != outside)
        return torch.where(entity, random_ids, batch["input_ids"]), chosen

    def _hide_context(self, batch: dict[str, Any], noise: Noise) -> Tensor:
        """Hide words around the entities of pairs; return what is read."""
        config, mask = self.config, batch["attention_mask"]
        if not self.training or batch.get("pixel_values") is None or config.context_hiding_probability == 0:
            return mask
        count, length = mask.shape
        known = [[-100] * length] * count if batch.get("labels") is None else batch["labels"].tolist()
        labelled = [any(label != -100 for label in labels) for labels in known]
        share = torch.tensor([config.context_hiding_probability * (0.5 if has else 1.0) for has in labelled])
        chosen = (noise.uniform(count) < share) & batch["image_mask"]
        text_noise: list[Tensor] = []
        looks = any(chosen[row] and not labelled[row] for row in range(count))
        if looks and self.samples_texts and self._reads(None):
            text_noise = noise.gumbel(self.stages, count, length)
        shares = noise.uniform(count)
        of_words = noise.uniform(count * (length + 1)).view(count, length + 1)
        starts = batch.get("word_start_mask")
        read = mask.clone()
        for row in chosen.nonzero().flatten().tolist():
            places = mask[row].nonzero().squeeze(1)
            tags = [known[row][place] for place in places.tolist()]
            if not labelled[row]:
                sentence = Sentence(places, self._embed(batch, batch.get("input_ids"), row, mask), False, False)
                self._read_text(sentence, None, False, None, [stage[row] for stage in text_noise])
                tags = linear(self.head["classifier"], sentence.last).argmax(dim=1).tolist()
            begins = (mask if starts is None else starts)[row]
            numbers = begins.long().cumsum(0).tolist()
            outside = config.label2id.get("O", -1)
            found = [place for place, tag in zip(places.tolist(), tags, strict=True) if tag not in (-100, outside)]
            kept = {numbers[place] for place in places.tolist()[1:] if place in found and begins[place]}
            share = min(2 * float(shares[row]), 1.0) if kept else float(shares[row])
            for place in places.tolist()[1:]:
                word = numbers[place]
                if word > 0 and word not in kept and of_words[row, word] < share:
                    read[row, place] = False
        return read

    def _measure(self, images: list[Image], present: list[bool]) -> None:
        """Find mean and variance of pooled features over all images so far, until there have been enough."""
        if self.config.visual_target != "pooled" or not images:
            return
        part = self.vision_branch["pooled_target"]
        self.mean, self.variance = part.tensor("mean"), part.tensor("variance")
        seen = int(part.tensor("images_seen"))
        if not (self.training and any(present) and seen < 1024):
            return
        rows = [row for row, there in enumerate(present) if there]
        pooled = torch.stack([self._pool(image.last).detach() for image in images])[rows]
        # the sums of all images, from the moments of those before
        total = seen + len(pooled)
        first = (seen * self.mean + pooled.sum(dim=0)) / total
        second = (seen * (self.variance + self.mean.square()) + pooled.square().sum(dim=0)) / total
        self.mean, self.variance = first.detach(), (second - first.square()).detach()

    def _pool(self, states: Tensor) -> Tensor:
        """Class token, or else the largest value of any patch, and mean patch."""
        states = normalize(states) if self.config.normalize_targets else states
        if self.config.vision_config.model_type == "siglip_vision_model":
            return torch.stack([states.max(dim=0).values, states.mean(dim=0)])
        return torch.stack([states[0], states[1:].mean(dim=0)])

    def _pooled(self, states: Tensor) -> Tensor:
        return (self._pool(states) - self.mean) / (self.variance + 1e-6).sqrt()

    def _embed(self, batch: dict[str, Any], ids: Tensor | None, row: int, read_mask: Tensor) -> Tensor:
        places = read_mask[row].nonzero().squeeze(1)
        types, positions = torch.zeros_like(places), torch.arange(len(places))
        if batch.get("token_type_ids") is not None:
            types = batch["token_type_ids"][row][places]
        if batch.get("position_ids") is not None:
            positions = batch["position_ids"][row][places]
        if ids is None:
            words = batch["inputs_embeds"][row][places].double()
        else:
            words = self.text.tensor("embeddings.word_embeddings.weight")[ids[row][places]]
        return embed_bert(self.text, self.config.text_config, words, types, positions)

    def _look(self, pixels: Tensor, text_length: int, noise: list[Tensor]) -> Image:
        """Run the vision encoder on an image; its layers may read the text that is generated from their own states."""
        config, image = self.config.vision_config, Image()
        states = embed_image(self.vision, config, pixels)
        first_stage = config.num_hidden_layers - self.stages
        for index in range(config.num_hidden_layers):
            stage, read = index - first_stage, None
            if stage >= 0:
                image.states.append(states)
                if self.vision_reads:
                    self._sample_image(image, stage, None, noise)
                    image.generated[stage] = self._generate_text(states, image.keep[stage], text_length)
                    read = self._project(self.vision_branch, stage, self._as_read(image.generated[stage]))
            states = vision_layer(self.vision, config, index, states, read)
        image.last = vision_final_norm(self.vision, config, states)
        return image

    def _read_text(
        self, sentence: Sentence, image: Image | None, hidden: bool, source: str | None, noise: list[Tensor]
    ) -> None:
        """Run the text branch: sample, generate, and let each layer read what its sentence is to read."""
        config = self.config
        reads = self._reads(source)
        asked = (source or config.visual_source) == "real" and not (self.training and config.use_text_to_image)
        shows_real = sentence.beside_image and (asked or hidden)

        def at_stage(stage: int, states: Tensor) -> Read | None:
            sentence.states.append(states)
            if not reads and image is None:
                return None
            before = sentence.keep[-1] if sentence.keep else torch.ones(len(states), dtype=torch.float64)
            if self.samples_texts:
                part = self.text_branch["samplers"][stage]
                sampled = noise[stage][sentence.places] if noise else None
                before = self._sample(part, states, before, 0, None, sampled)
            sentence.keep.append(before)
            if config.use_text_to_image:
                sentence.generated.append(self._generate_vision(states, self._keep_bias(before)))
            if not reads:
                return None
            if shows_real and image is not None:
                real = image.states[stage] if config.visual_target == "layer" else image.last
                real = self._pooled(real) if config.visual_target == "pooled" else real
                return self._project(self.text_branch, stage, real)
            made = sentence.generated
            return self._project(self.text_branch, stage, self._as_read(made[stage])) if made else None

        sentence.last = sentence.last_of_true_words = self._run_bert(sentence.embedded, at_stage)

    def _reads(self, source: str | None) -> bool:
        return self.text_reads and (source or self.config.visual_source) != "none"

    def _as_read(self, generated: Tensor) -> Tensor:
        return generated.detach() if self.training and not self.config.generators_learn_from_labels else generated

    def _read_again(self, sentence: Sentence, embedded: Tensor, reads: bool) -> Tensor:
        """Read a sentence with replaced entities beside what its true words generated."""

        def at_stage(stage: int, states: Tensor) -> Read | None:
            if not (reads and sentence.generated):
                return None
            return self._project(self.text_branch, stage, sentence.generated[stage].detach())

        return self._run_bert(embedded, at_stage)

    def _run_bert(self, states: Tensor, at_stage: Callable[[int, Tensor], Read | None]) -> Tensor:
        config = self.config.text_config
        for index in range(config.num_hidden_layers):
            stage = index - (config.num_hidden_layers - self.stages)
            read = at_stage(stage, states) if stage >= 0 else None
            states = bert_layer(self.text["encoder"]["layer"][index], config, states, read)
        return states

    def _finish_image(self, sentence: Sentence, image: Image, noise: list[Tensor], only: int | None) -> None:
        """Sample the image's stages and generate text from them, now that it is known what the text generates."""
        for stage in range(self.stages):
            match = self._match(sentence, image, stage) if sentence.generated else None
            image.match = match
            if self.vision_reads:
                continue  # done while the encoder ran
            self._sample_image(image, stage, match, noise)
            if self.config.use_image_to_text and only in (None, stage):
                states, keep = image.states[stage], image.keep[stage]
                image.generated[stage] = self._generate_text(states, keep, len(sentence.places))

    def _match(self, sentence: Sentence, image: Image, stage: int) -> Tensor:
        """Cosine of the mean generated and the mean real visual features; 1 where the two needn't fit."""
        if not sentence.aligned:
            return torch.ones((), dtype=torch.float64)
        ours, theirs = sentence.generated[stage].detach(), self._visual_target(image, stage)
        if self.config.visual_target == "pooled":
            ours, theirs = ours.flatten(), theirs.flatten()
        else:
            ours, theirs = ours.mean(dim=0), theirs.mean(dim=0)
        return (ours @ theirs) / (ours.norm() * theirs.norm()).clamp(min=1e-8)

    def _sample_image(self, image: Image, stage: int, match: Tensor | None, noise: list[Tensor]) -> None:
        states = image.states[stage]
        before = image.keep[-1] if image.keep else torch.ones(len(states), dtype=torch.float64)
        if self.config.use_context_sampler and self.config.use_image_to_text:
            class_token = None if self.config.vision_config.model_type == "siglip_vision_model" else 0
            part = self.vision_branch["samplers"][stage]
            if not (self.config.sampler_reads_match and self.config.use_text_to_image and not self.vision_reads):
                match = None
            before = self._sample(part, states, before, class_token, match, noise[stage] if noise else None)
        image.keep.append(before)

    def _sample(
        self,
        part: Weights,
        states: Tensor,
        before: Tensor,
        class_token: int | None,
        match: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        """SCS: keep^l = keep^(l-1) * decision^l, of local and global context, the latter over what was kept so far."""
        u = gelu(linear(part["local_global"], layer_norm(part["norm"], states)))
        half = u.shape[1] // 2
        kept_sum, kept_count = torch.zeros(half, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for position in range(len(u)):
            kept_sum = kept_sum + before[position] * u[position, half:]
            kept_count = kept_count + before[position]
        context = kept_sum / kept_count.clamp(min=1)
        decisions = []
        for position in range(len(u)):
            joined = torch.cat([u[position, :half], context])
            logits = linear(part["decision"], gelu(linear(part["hidden"], joined))) + part.tensor("decision_bias")
            if match is not None:
                logits = logits + torch.cat([part.tensor("match_weight") * match, logits.new_zeros(1)])
            if position == class_token:
                decisions.append(torch.ones((), dtype=torch.float64))
            elif noise is None:
                decisions.append((logits[0] >= logits[1]).double())
            else:
                soft = torch.softmax((logits + noise[position]) / self.config.sampler_temperature, dim=0)[0]
                hard = (soft >= 0.5).double()
                decisions.append(hard + soft - soft.detach())  # straight through
        after = before * torch.stack(decisions)
        return before if after.sum() == 0 else after

    def _keep_bias(self, keep: Tensor) -> Tensor:
        if self.training:
            return torch.log(keep + 1e-6)
        return torch.zeros_like(keep).masked_fill(keep == 0, -math.inf)

    def _generate_vision(self, text_states: Tensor, bias: Tensor) -> Tensor:
        heads = self.config.vision_config.num_attention_heads
        count = len(self.text_branch["generator"].tensor("modality_queries"))
        return self._generate(self.text_branch["generator"], text_states, bias, count, heads, causal=False)

    def _generate_text(self, vision_states: Tensor, keep: Tensor | None, count: int) -> Tensor:
        bias = vision_states.new_zeros(len(vision_states)) if keep is None else self._keep_bias(keep)
        heads = self.config.text_config.num_attention_heads
        return self._generate(self.vision_branch["generator"], vision_states, bias, count, heads, causal=True)

    def _generate(self, part: Weights, source: Tensor, bias: Tensor, count: int, heads: int, causal: bool) -> Tensor:
        """MCG: `count` modality queries read each other, and the source under its keep mask."""
        queries = part.tensor("modality_queries")[:count]
        source = layer_norm(part["source_norm"], source)
        visible = torch.zeros(count, count, dtype=torch.float64)
        for query in range(count):
            for other in range(count):
                if causal and other > query:
                    visible[query, other] = -math.inf
        for number in range(self.config.generator_num_layers):
            layer = part["layers"][number]
            normed = layer_norm(layer["self_norm"], queries)
            queries = queries + self._attend(layer["self_attention"], normed, normed, heads, visible)
            asked = layer_norm(layer["cross_norm"], queries)
            queries = queries + self._attend(layer["cross_attention"], asked, source, heads, bias)
            widened = gelu(linear(layer["ffn"][0], layer_norm(layer["ffn_norm"], queries)))
            queries = queries + linear(layer["ffn"][2], widened)
        return linear(part["output"], layer_norm(part["norm"], queries))

    def _attend(self, part: Weights, asking: Tensor, source: Tensor, heads: int, bias: Tensor) -> Tensor:
        keys, values = linear(part["key"], source), linear(part["value"], source)
        return linear(part["output"], attention(linear(part["query"], asking), keys, values, heads, bias))

    def _project(self, branch: Weights, stage: int, features: Tensor) -> Read:
        """Bring features into a layer: LayerNorm, projection to its width, and the gate as a bias on their scores."""
        part = branch["projections"][stage]
        projected = linear(part["projection"], layer_norm(part["norm"], features))
        return Read(projected, part.tensor("gate").expand(len(features)))

    def _target(self, states: Tensor) -> Tensor:
        states = states.detach()
        return normalize(states) if self.config.normalize_targets else states

    def _visual_target(self, image: Image, stage: int) -> Tensor:
        if self.config.visual_target == "pooled":
            return self._pooled(image.last).detach()
        return self._target(image.last if self.config.visual_target == "last" else image.states[stage])

    def _distance(self, generated: Tensor, target: Tensor, keep: Tensor | None = None) -> Tensor:
        """Mean over positions, or over those that are kept, of the distance of two vectors."""
        if keep is not None and self.config.keep_weighted_reconstruction:
            kept = keep.detach().nonzero().squeeze(1)
            generated, target = generated[kept], target[kept]
        kind, total = self.config.reconstruction_distance, torch.zeros((), dtype=torch.float64)
        for ours, theirs in zip(generated, target, strict=True):
            if kind == "cosine":
                total = total + 1 - (ours @ theirs) / (ours.norm() * theirs.norm()).clamp(min=1e-8)
                continue
            apart = (ours - theirs).abs()
            if kind == "smooth_l1":
                total = total + torch.where(apart < 1, apart.square() / 2, apart - 0.5).mean()
            else:
                total = total + apart.square().mean()
        return total / len(generated)

    def _alignment_losses(self, sentences: list[Sentence], images: list[Image]) -> dict[str, Tensor | None]:
        """L_rec and L_cyc: means over stages and the whole batch, summed over directions; unaligned pairs add 0."""
        config, zero = self.config, torch.zeros((), dtype=torch.float64)
        to_vision, to_text, text_cycle, vision_cycle, excess = [], [], [], [], []
        for sentence, image in zip(sentences, images, strict=True):
            both_ways = bool(sentence.generated) and bool(image.generated)
            for stage in range(self.stages):
                visual = self._visual_target(image, stage)
                textual = self._target(sentence.states[stage])
                if sentence.generated:
                    made = sentence.generated[stage]
                    to_vision.append(self._distance(made, visual, image.keep[stage]) if sentence.aligned else zero)
                if stage not in image.generated:
                    continue
                made = image.generated[stage]
                to_text.append(self._distance(made, textual, sentence.keep[stage]) if sentence.aligned else zero)
                if both_ways:
                    # text -> generated vision -> text, and vision -> generated text -> vision, all of it read
                    back = self._generate_text(sentence.generated[stage], None, len(sentence.places))
                    text_cycle.append(self._distance(back, textual) if sentence.aligned else zero)
                    back = self._generate_vision(made, made.new_zeros(len(made)))
                    vision_cycle.append(self._distance(back, visual) if sentence.aligned else zero)
            if sentence.generated and config.align_last_states:
                made = self._generate_vision(sentence.last_of_true_words, self._keep_bias(sentence.keep[-1]))
                to_vision.append(self._distance(made, visual, image.keep[-1]) if sentence.aligned else zero)
            above = (image.keep[-1].mean() - config.keep_budget).clamp(min=0).square()
            excess.append(above if sentence.beside_image else zero)

        def mean(losses: list[Tensor]) -> Tensor:
            return torch.stack(losses).mean()

        reconstructed = [mean(losses) for losses in (to_vision, to_text) if losses]
        has_budget = self.training and config.keep_budget < 1
        samples = config.use_context_sampler and config.use_image_to_text
        return {
            "reconstruction_loss": (
                torch.stack(reconstructed).sum() if reconstructed and config.reconstruction_weight > 0 else None
            ),
            "cycle_loss": mean(text_cycle) + mean(vision_cycle) if text_cycle and config.cycle_weight > 0 else None,
            "keep_loss": mean(excess) if has_budget and samples else None,
        }


class ReferenceCrf:
    """A linear-chain CRF, by sums over one position at a time in log space."""

    def __init__(self, config: BgaMnerConfig, weights: Weights) -> None:
        names = [config.id2label[number] for number in range(len(config.id2label))]
        self.tags = range(len(names))
        self.starts = weights.tensor("start_transitions")
        self.ends = weights.tensor("end_transitions")
        self.transitions = weights.tensor("transitions")
        self.may_start = [True for _ in names]
        self.may_follow = [[True for _ in names] for _ in names]
        if not config.constrain_transitions:
            return
        forbidden = torch.tensor(-1e4, dtype=torch.float64)
        for tag, name in enumerate(names):
            kind = name[2:]
            if not name.startswith("I-") or f"B-{kind}" not in names:
                continue
            self.may_start[tag] = False
            for before in self.tags:
                self.may_follow[before][tag] = names[before] in (f"B-{kind}", name)
        self.starts = torch.where(torch.tensor(self.may_start), self.starts, forbidden)
        self.transitions = torch.where(torch.tensor(self.may_follow), self.transitions, forbidden)

    def log_sum(self, emissions: Tensor, allowed: list[list[int]]) -> Tensor:
        """Log of the summed exponential scores of all paths with one of the `allowed` tags at each position."""
        score = self.starts[allowed[0]] + emissions[0, allowed[0]]
        for position in range(1, len(emissions)):
            before, now = allowed[position - 1], allowed[position]
            moves = self.transitions[before][:, now]
            score = torch.logsumexp(score[:, None] + moves, dim=0) + emissions[position, now]
        return torch.logsumexp(score + self.ends[allowed[-1]], dim=0)

    def loss(self, emissions: Tensor, labels: list[int]) -> Tensor:
        """Log Z - log Z', the latter over what agrees with the known labels; -100 and illegal ones are unknown."""
        everything = [list(self.tags) for _ in labels]
        allowed = []
        for position, label in enumerate(labels):
            known = label != -100
            if known and position == 0:
                known = self.may_start[label]
            elif known and labels[position - 1] != -100:
                known = self.may_follow[labels[position - 1]][label]
            allowed.append([label] if known else list(self.tags))
        return self.log_sum(emissions, everything) - self.log_sum(emissions, allowed)

    def log_marginals(self, emissions: Tensor) -> Tensor:
        """Log p(tag at a position), (length, tags), by a sum over all other tags for each; none below -200."""
        with torch.no_grad():
            everything = [list(self.tags) for _ in emissions]
            partition = self.log_sum(emissions, everything)
            result = torch.empty_like(emissions)
            for position in range(len(emissions)):
                for tag in self.tags:
                    one = [*everything[:position], [tag], *everything[position + 1 :]]
                    result[position, tag] = self.log_sum(emissions, one) - partition
            return result.clamp(min=-200)

    def best_path(self, emissions: Tensor) -> list[int]:
        """Tags of the path of highest score: for each tag of a position the best path that ends there."""
        scores, moves = emissions.tolist(), self.transitions.tolist()
        paths = [(self.starts[tag].item() + scores[0][tag], [tag]) for tag in self.tags]
        for at_position in scores[1:]:
            paths = [
                max((score + moves[path[-1]][tag] + at_position[tag], [*path, tag]) for score, path in paths)
                for tag in self.tags
            ]
        return max((score + self.ends[path[-1]].item(), path) for score, path in paths)[1]
