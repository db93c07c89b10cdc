// From the scores of tokens to entities in the text, as the pipeline of transformers groups them ("simple").

/** Probabilities of a row of scores. */
export function softmax(scores) {
  const largest = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - largest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

// How a text may be parted so that its parts have the tokens of the whole, the finest first. A space goes to what
// follows it, as tokenizers of bytes and of SentencePiece have it.
const PARTS = [/\s*(?:[\p{L}\p{M}\p{N}_]+|[^\s\p{L}\p{M}\p{N}_])/gu, /\s*\S+/gu];

/**
 * Say where each token of a text stands, since tokenizers in JavaScript don't: [start, end] each.
 *
 * `tokenize` gives the tokens of a text, without special ones. A part of the text that has the tokens which the whole
 * has there holds these tokens; inside a part, tokens stand one after the other.
 */
export function locate(text, tokenize) {
  const whole = tokenize(text);
  for (const pattern of PARTS) {
    const parts = [...text.matchAll(pattern)].map((match) => {
      const start = match.index + match[0].length - match[0].trimStart().length;
      return { start, end: match.index + match[0].length, tokens: tokenize(match[0]) };
    });
    const joined = parts.flatMap((part) => part.tokens);
    if (joined.length === whole.length && joined.every((token, place) => token === whole[place])) {
      return parts.flatMap((part) => inside(text, part));
    }
  }
  return inside(text, { start: 0, end: text.length, tokens: whole });
}

/** Write a text as tokenizers may: without accents, in small letters; and where each character was. */
function fold(text) {
  const [folded, places] = [[], []];
  let position = 0;
  for (const character of text) {
    const plain = character.normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase();
    for (const unit of plain.split("")) {
      folded.push(unit);
      places.push([position, position + character.length]);
    }
    position += character.length;
  }
  return [folded.join(""), places];
}

/** Lay the tokens of a part one after the other; one that can't be found stands for what is between its neighbours. */
function inside(text, { start, end, tokens }) {
  if (tokens.length === 1) return [[start, end]];
  const [content, characters] = fold(text.slice(start, end));
  const first = (position) => start + (characters[position]?.[0] ?? end - start);
  const found = [];
  let position = 0;
  for (const token of tokens) {
    while (/\s/u.test(content[position] ?? "")) position += 1;
    const [plain] = fold(token.replace(/^(##|▁|Ġ)/u, ""));
    const at = content.indexOf(plain, position);
    if (at < 0) {
      found.push(null);
      continue;
    }
    position = at + plain.length;
    // a token may be a space alone
    found.push(plain ? [first(at), start + characters[position - 1][1]] : [first(at), first(at)]);
  }
  return found.map((place, number) => {
    if (place) return place;
    const before = found.slice(0, number).findLast((other) => other)?.[1] ?? start;
    const after = found.slice(number).find((other) => other)?.[0] ?? end;
    const between = text.slice(before, after);
    return [before + between.length - between.trimStart().length, after - between.length + between.trimEnd().length];
  });
}

/**
 * Group tokens into entities: neighbours of one type, until a "B-" tag begins the next.
 *
 * `rows` are the probabilities of each token, `places` as of `locate`. An entity has the text, the type, the mean
 * probability of its tokens' tags, and its first character and the one after its last.
 */
export function group(text, places, rows, id2label) {
  const found = [];
  let last = null;
  rows.forEach((row, number) => {
    const best = row.indexOf(Math.max(...row));
    const label = id2label[best];
    if (label === "O") {
      last = null;
      return;
    }
    const [begins, type] = [label.startsWith("B-"), label.replace(/^[BI]-/, "")];
    const [start, end] = places[number];
    if (last && !begins && last.type === type) {
      last.end = Math.max(last.end, end);
      last.scores.push(row[best]);
    } else {
      last = { type, start, end, scores: [row[best]] };
      found.push(last);
    }
  });
  return found.map(({ type, start, end, scores }) => ({
    type,
    start,
    end,
    word: text.slice(start, end),
    score: scores.reduce((total, score) => total + score, 0) / scores.length,
  }));
}
