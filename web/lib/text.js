// A read-only text on a node, which is neither saved nor sent to the server.
import { app } from "/scripts/app.js";

const TEXT_WIDGET = "lowvram_text";
const LINE_PX = 15;
const COLUMN_PX = 7.3;
const WIDGET_PX = 28;
const FOOT_PX = 40; // what Nodes 2.0 draws under the widgets, and the text's label
const MOST_COLUMNS = 80; // the report's table is narrower than this; longer notes wrap

/** Makes a widget read-only. Its value is neither saved nor sent to the server. */
export function readOnly(widget, label) {
  Object.assign(widget, { label, serialize: false, serializeValue: () => undefined });
  Object.assign(widget.options, { serialize: false, read_only: true });
  return widget;
}

/** Returns the widget for the text; adds it if it is missing. Its label is the translated name of the last output. */
export function textWidget(node) {
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

/** Shows the text. The node grows if the text needs more room. */
export function showText(node, text) {
  textWidget(node).value = text;
  const lengths = text.split("\n").map((line) => line.length);
  const columns = Math.min(Math.max(...lengths), MOST_COLUMNS);
  const rows = lengths.reduce((sum, length) => sum + Math.max(1, Math.ceil(length / columns)), 0);
  const others = WIDGET_PX * (node.widgets.length - 1) + (window.LiteGraph?.vueNodesMode ? FOOT_PX : 0);
  const [width, height] = [columns * COLUMN_PX + 50, Math.min(rows * LINE_PX + 70, 640) + others];
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas(true, true);
}
