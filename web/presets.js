// Shows the values of a preset on its node: Preset, the fixed presets and Preset Auto; and the text of Preset to JSON.
import { app } from "/scripts/app.js";
import { showText, textWidget } from "./lib/text.js";
import { readWords, translated } from "./lib/words.js";

const PREFIX = "Hy3dLowVram_Preset";
const CHOSEN = PREFIX;
const AUTO = `${PREFIX}Auto`;
const TO_JSON = `${PREFIX}ToJson`;
const OTHERS = [`${PREFIX}Custom`, `${PREFIX}FromJson`]; // their widgets show their values
const BY_CARD = "Auto"; // the choice of Preset that does what Preset Auto does
const ROOM = { [CHOSEN]: [300, 320], [AUTO]: [300, 320], [TO_JSON]: [300, 200] }; // for any of their texts

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
  if ([AUTO, TO_JSON].includes(node.comfyClass)) return undefined;
  if (node.comfyClass !== CHOSEN) return node.comfyClass;
  return chosen(node) === BY_CARD ? undefined : PREFIX + chosen(node).replaceAll(" ", "");
}

/** Shows the values; where only a run tells them: what the node does, in the user's language. */
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

  init: readWords,

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (![CHOSEN, AUTO, TO_JSON].includes(nodeData.name)) return;
    const { onExecuted } = nodeType.prototype;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      if (output?.text && !fixedNode(this)) showText(this, translated(output.text.join("\n")));
    };
  },

  async nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX) || OTHERS.includes(node.comfyClass)) return;
    textWidget(node).value = "";
    if (ROOM[node.comfyClass]) node.setSize(ROOM[node.comfyClass]);
    if (node.comfyClass === CHOSEN) follow(node);
    await showValues(node);
  },
});
