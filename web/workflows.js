// Shows the titles and notes of the bundled workflows in the user's language. A text that the user changed stays.
import { app } from "/scripts/app.js";
import { PREFIX } from "./lib/nodes.js";
import { languages, locale } from "./lib/words.js";

const NOTE = "PrimitiveStringMultiline";
const KEY = "hunyuan3dLowVramWorkflows";
let translated; // a promise: each text of any language, with its translation

/** Returns the translations from all languages into the user's. Texts come from the pack's locales folder. */
async function translations() {
  const known = await languages();
  const wanted = known[locale()]?.[KEY] ?? known.en?.[KEY] ?? {};
  const pairs = Object.values(known).flatMap((texts) =>
    Object.entries(texts[KEY] ?? {}).map(([key, text]) => [text, wanted[key] ?? text]),
  );
  return new Map(pairs);
}

/** Returns a graph and the graphs inside its subgraph nodes. */
function withInner(graph) {
  return [graph, ...graph.nodes.flatMap((node) => (node.subgraph ? withInner(node.subgraph) : []))];
}

function isOurs(graph) {
  return withInner(graph).some((part) => part.nodes.some((node) => node.type?.startsWith(PREFIX)));
}

/** Replaces a property if its text is one of ours. */
function replace(owner, property, texts) {
  const text = texts.get(owner?.[property]?.trim?.());
  if (text && text !== owner[property].trim()) owner[property] = text;
}

function translateNode(node, texts) {
  replace(node, "title", texts);
  if (node.subgraph) replace(node.subgraph, "name", texts);
  if (node.type === NOTE) replace(node.widgets?.find((widget) => widget.name === "value"), "value", texts);
}

async function translate(graph) {
  if (!graph || !isOurs(graph)) return;
  translated ??= translations();
  const texts = await translated;
  for (const part of withInner(graph)) {
    for (const group of part.groups ?? []) replace(group, "title", texts);
    for (const node of part.nodes) translateNode(node, texts);
  }
  app.canvas?.setDirty(true, true);
}

app.registerExtension({
  name: "hunyuan3dlowvram.workflows",

  setup() {
    // Blueprints come into a graph without a load. Their inside is seen first when it is opened.
    app.canvas.canvas.addEventListener("litegraph:set-graph", ({ detail }) => translate(detail.newGraph));
  },

  async afterConfigureGraph() {
    await translate(app.rootGraph ?? app.graph);
  },
});
