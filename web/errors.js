// When one of our nodes stops: a toast and a text on the node say what was met, what is wanted and what to do.
import { app } from "/scripts/app.js";
import { language } from "./lib/language.js";
import { filled, firstPart } from "./lib/messages.js";
import { nodeOf, PREFIX } from "./lib/nodes.js";
import { readOnly } from "./lib/text.js";

const OURS = "hunyuan3d_lowvram."; // the module that our errors name, see lowvram_core/errors.py
const WIDGET = "lowvram_error";
const TOAST_CLASS = "lowvram-error";
const LINE_PX = 15;
const COLUMN_PX = 7;
const MOST_LINES = 16;
const WRAPPED = 1.25; // words, paths and addresses leave room at the ends of lines
const LEAST_WIDTH_PX = 320;
const REPORT_MS = 400; // until ComfyUI's own report has its place

let toast;

function titleOf(node, type) {
  return node?.title ?? window.LiteGraph.registered_node_types[type]?.title ?? type;
}

async function show({ node_id: id, node_type: type, exception_type: kind = "", exception_message: message = "" }) {
  const node = nodeOf(id);
  const found = node?.comfyClass === type ? node : undefined;
  const size = found && [...found.size]; // before ComfyUI's own mark makes it higher
  const translate = await language();
  const localized = (template, ...values) => filled(translate(template), values);
  let detail = translate(firstPart(message));
  if (!kind.startsWith(OURS)) {
    detail = localized("unexpected {0}: {1}. ComfyUI's log says where. Please report it with the log.", kind, detail);
  } else if (message.trim().includes("\n")) {
    detail += ` ${localized("ComfyUI's report of the error lists more.")}`;
  }
  if (found) showOn(found, size, localized("stopped"), detail);
  await showToast(localized("{0} stopped", titleOf(found, type)), detail);
}

/** Shows a toast below ComfyUI's own report of the error, which has a button. */
async function showToast(summary, detail) {
  closeToast();
  const shown = (toast = { severity: "error", summary, detail, styleClass: TOAST_CLASS });
  await new Promise((resolve) => setTimeout(resolve, REPORT_MS));
  if (toast !== shown) return;
  const covered = coveredPixels();
  app.extensionManager.toast.add(shown);
  await new Promise(requestAnimationFrame); // until the toast has its element
  document.querySelectorAll(`.${TOAST_CLASS}`).forEach(({ style }) => (style.marginTop = `${covered}px`));
}

function coveredPixels() {
  const report = document.querySelector('[data-testid="error-overlay"]')?.getBoundingClientRect();
  const place = document.querySelector(".p-toast-top-right")?.getBoundingClientRect();
  return report && place ? Math.max(0, Math.round(report.bottom - place.top) + 20) : 0;
}

function closeToast() {
  if (toast) app.extensionManager.toast.remove(toast);
  toast = undefined;
}

/** Adds a read-only text to the node. It is neither saved nor sent to the server. */
function showOn(node, before, label, text) {
  clear(node);
  const { widget } = app.widgets.STRING(node, WIDGET, ["STRING", { multiline: true }], app);
  readOnly(widget, label).value = text;
  if (widget.element) {
    Object.assign(widget.element, { readOnly: true, spellcheck: false });
    Object.assign(widget.element.style, { color: "#ffb4ab", border: "1px solid #b3261e" });
  }
  const width = Math.max(before[0], LEAST_WIDTH_PX);
  const full = (textColumns(text) * COLUMN_PX) / (width - 40);
  const lines = Math.min(MOST_LINES, Math.ceil(full * WRAPPED) + 1);
  node.setSize([width, before[1] + lines * LINE_PX + 20]);
  node.lowvramSizeBefore = before;
  node.setDirtyCanvas(true, true);
}

/** Korean letters are two columns wide. */
function textColumns(text) {
  return [...text].reduce((sum, letter) => sum + (letter > "\u1100" ? 2 : 1), 0);
}

/** Removes the text from a node, which gets its size back. */
function clear(node) {
  const widget = node?.widgets?.find((known) => known.name === WIDGET);
  if (!widget) return;
  node.removeWidget(widget);
  node.setSize(node.lowvramSizeBefore ?? node.computeSize());
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "hunyuan3dlowvram.errors",

  setup() {
    const listen = (kind, act) => app.api.addEventListener(kind, ({ detail }) => act(detail));
    listen("execution_start", closeToast);
    listen("execution_error", (detail) => detail.node_type?.startsWith(PREFIX) && show(detail));
    listen("executing", (id) => id && clear(nodeOf(id)));
    listen("execution_cached", ({ nodes }) => nodes?.map(nodeOf).forEach(clear));
  },
});
