// Put the page, the library and a student into one folder that any web server can serve:
//
//   npm ci --ignore-scripts
//   node build.mjs STUDENT PAGE
//
// STUDENT is what examples/distill.py --onnx wrote; PAGE is made.

import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const PAGE_FILES = ["index.html", "style.css", "app.js", "model.js", "tagging.js"];
const LIBRARY_FILES = {
  "@huggingface/transformers/dist/transformers.web.min.js": "transformers.web.min.js",
  "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.mjs",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.mjs",
  "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
};
const MODEL_FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model_quantized.onnx"];

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(2);
}

const [student, page] = process.argv.slice(2);
if (!student || !page) fail("Expected the folders STUDENT and PAGE, got fewer. Run: node build.mjs STUDENT PAGE");
const missing = MODEL_FILES.filter((name) => !existsSync(join(student, name)));
if (missing.length) {
  fail(`Expected a student with ${missing.join(", ")}, got none in ${student}. Write them: examples/distill.py --onnx`);
}
const [architecture] = JSON.parse(readFileSync(join(student, "config.json"), "utf8")).architectures ?? [];
if (!architecture?.endsWith("ForTokenClassification")) {
  fail(`Expected a student that tags tokens, got ${architecture} in ${student}. Distil a tagger.`);
}
if (existsSync(join(page, "config.json"))) {
  fail(`Expected a new folder or an older page as PAGE, got ${page}, which holds a model. Name another.`);
}
const modules = join(here, "node_modules");
if (!existsSync(join(modules, "@huggingface"))) {
  fail(`Expected @huggingface/transformers in ${modules}, got none. Run: npm ci --ignore-scripts`);
}

mkdirSync(join(page, "vendor"), { recursive: true });
mkdirSync(join(page, "model", "onnx"), { recursive: true });
for (const name of PAGE_FILES) cpSync(join(here, name), join(page, name));
for (const [source, name] of Object.entries(LIBRARY_FILES)) cpSync(join(modules, source), join(page, "vendor", name));
for (const name of MODEL_FILES) cpSync(join(student, name), join(page, "model", name));

// the widget's texts, where distill.py knew some
const examples = join(student, "onnx", "examples.json");
writeFileSync(join(page, "model", "examples.json"), existsSync(examples) ? readFileSync(examples) : "[]");

// what makes a folder of the Hub a static Space
const [, space] = readFileSync(join(here, "README.md"), "utf8").split(/^---$/m);
writeFileSync(join(page, "README.md"), `---${space}---\n`);

// of all files, so that browsers fetch a new build once, and no build twice
const digest = createHash("sha256");
for (const entry of readdirSync(page, { recursive: true, withFileTypes: true })) {
  if (entry.isFile() && entry.name !== "worker.js") digest.update(readFileSync(join(entry.parentPath ?? entry.path, entry.name)));
}
const worker = readFileSync(join(here, "worker.js"), "utf8").replace("BUILD", digest.digest("hex").slice(0, 16));
writeFileSync(join(page, "worker.js"), worker);
console.log(`Serve ${page}, for example with: python -m http.server --directory ${page}`);
