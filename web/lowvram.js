// Adds to our nodes: a badge with the cost after a run, the table of Memory Report, the values of a preset.
import { app } from "/scripts/app.js";

const PREFIX = "Hy3dLowVram_";
const TEXT_WIDGET = "lowvram_text";
const COST_WIDGET = "lowvram_cost";
const SHOWS_TEXT = ["MemoryReport", "ModelCheck", "PresetAuto"];
const LINE_PX = 15;
const COLUMN_PX = 7.3;
const MOST_COLUMNS = 80; // the report's table is narrower than this; longer notes wrap
const GIB = 2 ** 30;

/** A badge with seconds and peak memory, above the node's title. The classic canvas draws it. */
class CostBadge {
  constructor(text) {
    Object.assign(this, { text, visible: true, height: 20, fontSize: 12, padding: 6, cornerRadius: 5 });
    Object.assign(this, { fgColor: "#d8f3dc", bgColor: "#1b4332", xOffset: 0, yOffset: 0, boundingRect: [0, 0, 0, 0] });
  }

  getWidth(context) {
    context.save();
    context.font = `${this.fontSize}px sans-serif`;
    const width = context.measureText(this.text).width + 2 * this.padding;
    context.restore();
    return width;
  }

  draw(context, x, y) {
    context.save();
    context.fillStyle = this.bgColor;
    context.beginPath();
    context.roundRect(x, y, this.getWidth(context), this.height, this.cornerRadius);
    context.fill();
    context.font = `${this.fontSize}px sans-serif`;
    context.fillStyle = this.fgColor;
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillText(this.text, x + this.padding, y + this.height / 2 + 1);
    context.restore();
  }
}

/** Returns the total seconds of all runs over a list, and the highest peak memory of one run. */
function costText({ hy3d_seconds: seconds, hy3d_peak_bytes: peaks }) {
  const peak = peaks.length ? `${(Math.max(...peaks) / GIB).toFixed(2)} GiB · ` : "";
  return `${peak}${seconds.reduce((sum, run) => sum + run, 0).toFixed(1)} s`;
}

function showBadge(node, text) {
  node.lowvramBadge = new CostBadge(text);
  if (!node.lowvramBadgeRead) {
    node.lowvramBadgeRead = () => node.lowvramBadge;
    node.badges.push(node.lowvramBadgeRead);
  }
  // Vue nodes read their badges only once, when they appear. So a widget shows the cost there.
  if (window.LiteGraph?.vueNodesMode) costLine(node).value = text;
  node.setDirtyCanvas(true, true);
}

function costLine(node) {
  const known = node.widgets?.find((widget) => widget.name === COST_WIDGET);
  if (known) return known;
  const { widget } = app.widgets.STRING(node, COST_WIDGET, ["STRING", {}], app);
  return readOnly(widget, "GiB · s");
}

/** Makes a widget read-only. Its value is neither saved nor sent to the server. */
function readOnly(widget, label) {
  Object.assign(widget, { label, serialize: false, serializeValue: () => undefined });
  Object.assign(widget.options, { serialize: false, read_only: true });
  return widget;
}

/** Returns the widget for the text; adds it if it is missing. Its label is the translated name of the last output. */
function textWidget(node) {
  const known = node.widgets?.find((widget) => widget.name === TEXT_WIDGET);
  if (known) return known;
  const { widget } = app.widgets.STRING(node, TEXT_WIDGET, ["STRING", { multiline: true }], app);
  const output = node.outputs.at(-1);
  readOnly(widget, output.localized_name ?? output.name);
  if (widget.element) {
    Object.assign(widget.element, { readOnly: true, spellcheck: false });
    Object.assign(widget.element.style, { fontFamily: "monospace", whiteSpace: "pre-wrap", opacity: 0.85 });
  }
  return widget;
}

function showText(node, text) {
  textWidget(node).value = text;
  const lengths = text.split("\n").map((line) => line.length);
  const columns = Math.min(Math.max(...lengths), MOST_COLUMNS);
  const rows = lengths.reduce((sum, length) => sum + Math.max(1, Math.ceil(length / columns)), 0);
  const [width, height] = [columns * COLUMN_PX + 50, Math.min(rows * LINE_PX + 70, 640)];
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas(true, true);
}

/** Returns a preset's `name: value` lines from the server. The front end's own description may be translated. */
async function presetValues(comfyClass) {
  const answer = await app.api.fetchApi(`/object_info/${comfyClass}`);
  const { description } = (await answer.json())[comfyClass];
  return description.split("\n").slice(1).join("\n");
}

app.registerExtension({
  name: "hunyuan3dlowvram.nodes",

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX)) return;
    const showsText = SHOWS_TEXT.includes(nodeData.name.slice(PREFIX.length));
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      if (output?.hy3d_seconds) showBadge(this, costText(output));
      if (output?.text && showsText) showText(this, output.text.join("\n"));
    };
  },

  async nodeCreated(node) {
    const verb = node.comfyClass?.startsWith(PREFIX) ? node.comfyClass.slice(PREFIX.length) : "";
    // Before the first run: what the node does, in the user's language.
    if (SHOWS_TEXT.includes(verb)) textWidget(node).value = node.constructor.nodeData.description;
    if (verb.startsWith("Preset") && verb !== "PresetAuto" && verb !== "PresetCustom") {
      textWidget(node).value = "";
      showText(node, await presetValues(node.comfyClass));
    }
  },
});
