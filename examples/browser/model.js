// The model: loaded from the folder beside the page, and asked for the entities of a text.

import { AutoModelForTokenClassification, AutoTokenizer, env } from "@huggingface/transformers";

import { group, locate, softmax } from "./tagging.js";

const folder = new URL(".", import.meta.url);
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = folder.pathname;
// the service worker keeps what is needed without a network
env.useBrowserCache = false;
env.useWasmCache = false;
env.backends.onnx.wasm.wasmPaths = `${folder.href}vendor/`;

/** Load tokenizer and model; `onProgress` is told the bytes loaded and the bytes in all. */
export async function load(dtype, onProgress) {
  const files = new Map();
  const progress_callback = (event) => {
    if (event.status !== "progress") return;
    files.set(event.file, [event.loaded, event.total]);
    const sums = [...files.values()].reduce((sum, [loaded, total]) => [sum[0] + loaded, sum[1] + total], [0, 0]);
    onProgress(...sums);
  };
  const tokenizer = await AutoTokenizer.from_pretrained("model", { progress_callback });
  const model = await AutoModelForTokenClassification.from_pretrained("model", { dtype, progress_callback });
  return new Tagger(tokenizer, model);
}

export class Tagger {
  constructor(tokenizer, model) {
    this.tokenizer = tokenizer;
    this.model = model;
    this.id2label = model.config.id2label;
    const [framed, plain] = [tokenizer.encode("a"), tokenizer.encode("a", { add_special_tokens: false })];
    this.before = framed.findIndex((_, first) => plain.every((id, place) => id === framed[first + place]));
    this.special = framed.length - plain.length;
  }

  /** The entity types that the model knows. */
  get types() {
    const labels = Object.values(this.id2label).filter((label) => label !== "O");
    return [...new Set(labels.map((label) => label.replace(/^[BI]-/, "")))].sort();
  }

  /** Probabilities of the tags of a text's tokens (tokens, tags), special ones left out. */
  async probabilities(text) {
    const { logits } = await this.model(this.tokenizer(text, { truncation: true }));
    const [, length, tags] = logits.dims;
    return Array.from({ length: length - this.special }, (_, token) => {
      const first = (this.before + token) * tags;
      return softmax(Array.from(logits.data.slice(first, first + tags)));
    });
  }

  /** Entities of a text, and where the text was cut if it is longer than the model reads. */
  async tag(text) {
    if (!text.trim()) return { entities: [], end: text.length };
    const rows = await this.probabilities(text);
    const places = locate(text, (part) => this.tokenizer.tokenize(part));
    const end = rows.length < places.length ? places[rows.length][0] : text.length;
    return { entities: group(text, places, rows, this.id2label), end };
  }
}
