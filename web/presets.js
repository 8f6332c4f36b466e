// Shows the values of a preset on its node: Preset, the fixed presets and Preset Auto.
import { app } from "/scripts/app.js";
import { showText, textWidget } from "./lib/text.js";

const PREFIX = "Hy3dLowVram_Preset";
const CHOSEN = PREFIX;
const AUTO = `${PREFIX}Auto`;
const OTHERS = [`${PREFIX}Custom`]; // their widgets show their values
const BY_CARD = "Auto"; // the choice of Preset that does what Preset Auto does

/** Returns a fixed preset's `name: value` lines from the server. The front end's own description may be translated. */
async function presetValues(comfyClass) {
  const answer = await app.api.fetchApi(`/object_info/${comfyClass}`);
  const { description } = (await answer.json())[comfyClass];
  return description.split("\n").slice(1).join("\n");
}

function chosen(node) {
  return node.widgets.find((widget) => widget.name === "preset").value;
}

/** Returns the fixed node whose values this node has; nothing if only a run tells them. */
function fixedNode(node) {
  if (node.comfyClass === AUTO) return undefined;
  if (node.comfyClass !== CHOSEN) return node.comfyClass;
  return chosen(node) === BY_CARD ? undefined : PREFIX + chosen(node).replaceAll(" ", "");
}

/** Shows the values; for Auto before its first run: what the node does, in the user's language. */
async function showValues(node) {
  const fixed = fixedNode(node);
  if (!fixed) {
    textWidget(node).value = node.constructor.nodeData.description;
    return;
  }
  const values = await presetValues(fixed);
  if (fixedNode(node) === fixed) showText(node, values); // else another one was chosen meanwhile
}

/** Shows the values again when another preset is chosen, and when a workflow has set the choice. */
function follow(node) {
  const choice = node.widgets.find((widget) => widget.name === "preset");
  const { callback } = choice;
  choice.callback = function (...given) {
    callback?.apply(this, given);
    showValues(node);
  };
  const { onConfigure } = node;
  node.onConfigure = function (...given) {
    onConfigure?.apply(this, given);
    showValues(this);
  };
}

app.registerExtension({
  name: "hunyuan3dlowvram.presets",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (![CHOSEN, AUTO].includes(nodeData.name)) return;
    const { onExecuted } = nodeType.prototype;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      if (output?.text && !fixedNode(this)) showText(this, output.text.join("\n"));
    };
  },

  async nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX) || OTHERS.includes(node.comfyClass)) return;
    textWidget(node).value = "";
    if (node.comfyClass === CHOSEN) follow(node);
    await showValues(node);
  },
});
