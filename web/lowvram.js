// Adds to our nodes: a badge with the cost after a run, the table of Memory Report, and a least width.
import { app } from "/scripts/app.js";
import { nodeOf, PREFIX } from "./lib/nodes.js";
import { readOnly, showText, textWidget } from "./lib/text.js";
import { readWords, word } from "./lib/words.js";

const COST_WIDGET = "lowvram_cost";
const REPORT = `${PREFIX}MemoryReport`;
const SHOWS_TEXT = [REPORT, `${PREFIX}ModelCheck`];
const GIB = 2 ** 30;
const LEAST_WIDTH_PX = 230; // room for the title, the badges and a picture
const cached = new Set(); // the nodes that did not run again in the last run

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

/** Returns the text of a node. Of a cached Memory Report: with a note, since its figures are of an earlier run. */
function told(node, text) {
  const again = node.comfyClass === REPORT && cached.has(node);
  return again ? `${word("notes", "cached")}\n\n${text}` : text;
}

/** Keeps the cached nodes. */
function followCache() {
  app.api.addEventListener("execution_start", () => cached.clear());
  app.api.addEventListener("execution_cached", ({ detail }) => {
    for (const id of detail?.nodes ?? []) cached.add(nodeOf(id));
  });
}

app.registerExtension({
  name: "hunyuan3dlowvram.nodes",

  async init() {
    followCache();
    await readWords();
  },

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX)) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      if (output?.hy3d_seconds) showBadge(this, costText(output));
      if (output?.text && SHOWS_TEXT.includes(nodeData.name)) showText(this, told(this, output.text.join("\n")));
    };
  },

  async nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    node.setSize([Math.max(node.size[0], LEAST_WIDTH_PX), node.size[1]]);
    // Before the first run: what the node does, in the user's language.
    if (SHOWS_TEXT.includes(node.comfyClass)) textWidget(node).value = node.constructor.nodeData.description;
  },
});
