// The page: what is typed, and what was found in it.

// milliseconds: without a key before a text is read, and for the worker
const PAUSE = 150;
const MOST_WAITING = 3000;

const element = Object.fromEntries(
  ["error", "examples", "loaded", "loading", "note", "progress", "result", "table", "text"].map((id) => [
    id,
    document.getElementById(id),
  ]),
);
let tagger = null;
let timer = 0;
let asked = 0; // the last text that was asked about: answers to older ones come too late

function fail(what, error) {
  element.error.textContent = `${what} (${error.message ?? error}). Try again, or reload the page.`;
  element.error.hidden = false;
  element.loading.hidden = true;
}

function hue(type) {
  const types = tagger.types;
  return Math.round((360 * types.indexOf(type)) / types.length + 20) % 360;
}

function coloured(kind, type, ...content) {
  const made = document.createElement(kind);
  made.style.setProperty("--hue", hue(type));
  made.append(...content);
  return made;
}

function show(text, { entities, end }) {
  const parts = [];
  let position = 0;
  for (const { type, start, end: stop } of entities) {
    const label = document.createElement("small");
    label.textContent = type;
    parts.push(text.slice(position, start), coloured("mark", type, text.slice(start, stop), label));
    position = stop;
  }
  parts.push(text.slice(position));
  element.result.replaceChildren(...parts);
  const rows = entities.map(({ type, word, score }) => {
    const row = document.createElement("tr");
    const [name, kind, number] = [0, 1, 2].map(() => row.insertCell());
    name.textContent = word;
    kind.append(coloured("span", type, type));
    kind.firstChild.className = "type";
    number.textContent = score.toFixed(2);
    number.className = "number";
    return row;
  });
  element.table.tBodies[0].replaceChildren(...rows);
  element.table.hidden = rows.length === 0;
  const cut = end < text.length ? ` The model reads the first ${end} characters, and no more.` : "";
  element.note.textContent = text.trim() ? (rows.length ? "" : "No entity.") + cut : "";
}

async function read() {
  const text = element.text.value;
  const number = ++asked;
  try {
    const answer = await tagger.tag(text);
    if (number !== asked) return;
    show(text, answer);
    element.error.hidden = true;
  } catch (error) {
    fail("The text could not be read", error);
  }
}

function readSoon() {
  clearTimeout(timer);
  timer = setTimeout(read, PAUSE);
}

/** Offer the texts of the model's card; the first is read at once. */
async function offerExamples() {
  const response = await fetch("model/examples.json").catch(() => null);
  const examples = response?.ok ? await response.json() : [];
  for (const example of examples) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example;
    button.addEventListener("click", () => {
      element.text.value = example;
      element.text.focus();
      read();
    });
    element.examples.append(button);
  }
  element.text.value ||= examples[0] ?? "";
}

function listen() {
  element.text.addEventListener("input", readSoon);
  element.text.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    element.text.value = "";
    read();
  });
}

/** Let the worker keep what is loaded from here on; without one the page needs the network each time. */
async function beKept() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("worker.js");
    if (navigator.serviceWorker.controller) return;
    await new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
      setTimeout(resolve, MOST_WAITING);
    });
  } catch (error) {
    console.warn("This page will not work offline:", error);
  }
}

async function start() {
  await beKept();
  const dtype = document.querySelector("meta[name=dtype]").content;
  try {
    const { load } = await import("./model.js");
    tagger = await load(dtype, (loaded, total) => {
      element.progress.value = total ? loaded / total : 0;
      element.loaded.textContent = `${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    });
  } catch (error) {
    fail("The model could not be loaded", error);
    return;
  }
  element.loading.hidden = true;
  element.text.disabled = false;
  listen();
  element.text.focus();
  await offerExamples();
  await read();
  document.body.dataset.ready = "true";
}

start();
