// Translates the texts that our nodes show while they run.
import { app } from "/scripts/app.js";
import { language } from "./lib/language.js";
import { translatedLine } from "./lib/messages.js";
import { nodeOf, PREFIX } from "./lib/nodes.js";

const TEXT = "$$node-text-preview"; // ComfyUI's widget. If ComfyUI renames it, texts stay English
let translate = (text) => text;

async function readLanguage() {
  translate = await language("_progress");
}

/** ComfyUI has shown the text before this: on the node, or on the subgraph node around it. */
function translateText({ detail }) {
  if (!nodeOf(detail.nodeId)?.comfyClass?.startsWith(PREFIX)) return;
  for (const node of app.canvas.graph.nodes) {
    const widget = node.widgets?.find((known) => known.name === TEXT);
    if (widget?.value === detail.text) widget.value = translatedLine(detail.text, translate);
  }
}

app.registerExtension({
  name: "hunyuan3dlowvram.progress",

  async setup() {
    app.api.addEventListener("progress_text", translateText);
    app.api.addEventListener("execution_start", readLanguage);
    await readLanguage();
  },
});
