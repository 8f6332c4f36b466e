// Folds the widgets of Preset Custom into groups, each under a button with its title.
//
// Saved workflows hold the widgets' values by position. The groups change the order on the screen only: a node is saved
// and loaded in the order of its definition.
import { app } from "/scripts/app.js";
import { readWords, word } from "./lib/words.js";

const NODE = "Hy3dLowVram_PresetCustom";
const GROUP = "hy3d_group"; // what the server calls the group of a widget
const TITLE = "hy3d_title_"; // the names of the buttons begin with it
const OPEN = ["shape", "texture"]; // what a new node shows
const SAVED = "hy3d_open"; // the property that saves what the user has opened

/** Returns the definition of each widget by its name, in the order of the definition. */
function definitions({ input }) {
  return new Map(Object.entries({ ...input.required, ...input.optional }));
}

/** Returns the widgets of the definition, in its order. */
function declared(node) {
  return [...node.lowvramDefinitions.keys()].map((name) => node.widgets.find((widget) => widget.name === name));
}

function groupOf(node, widget) {
  return node.lowvramDefinitions.get(widget.name)?.[1]?.[GROUP];
}

/** Returns all widgets as they are saved, then the buttons. */
function inOrder(node) {
  const own = declared(node);
  return [...own, ...node.widgets.filter((widget) => !own.includes(widget))];
}

/** Returns all widgets as they are shown: each button, then its group; then what other scripts have added. */
function inGroups(node) {
  const buttons = node.widgets.filter((widget) => widget.name.startsWith(TITLE));
  const grouped = buttons.flatMap((button) => [
    button, ...declared(node).filter((widget) => groupOf(node, widget) === button.name.slice(TITLE.length)),
  ]);
  return [...grouped, ...node.widgets.filter((widget) => !grouped.includes(widget))];
}

function isLinked(node, widget) {
  return node.inputs?.some((input) => input.widget?.name === widget.name && input.link != null);
}

/** Shows the widgets of the open groups, and those that another node sets. */
function show(node) {
  for (const widget of declared(node)) {
    const hidden = !node.lowvramOpen.has(groupOf(node, widget)) && !isLinked(node, widget);
    widget.hidden = hidden;
    widget.options.hidden = hidden; // Nodes 2.0 reads this one
  }
  for (const button of node.widgets.filter((widget) => widget.name.startsWith(TITLE))) {
    const group = button.name.slice(TITLE.length);
    button.label = `${node.lowvramOpen.has(group) ? "▾" : "▸"} ${word("groups", group)}`;
  }
  node.widgets = inGroups(node); // Nodes 2.0 looks again at the widgets of an array that has changed
  node.setDirtyCanvas(true, true);
}

function fit(node) {
  node.setSize([node.size[0], node.computeSize()[1]]);
}

function toggle(node, group) {
  if (!node.lowvramOpen.delete(group)) node.lowvramOpen.add(group);
  node.properties[SAVED] = [...node.lowvramOpen];
  show(node);
  fit(node);
}

/** Opens the groups in which a value is not the definition's: what was changed is not hidden. */
function openChanged(node) {
  for (const widget of declared(node)) {
    if (widget.value !== node.lowvramDefinitions.get(widget.name)[1].default) node.lowvramOpen.add(groupOf(node, widget));
  }
}

function addButton(node, group) {
  const button = node.addWidget("button", TITLE + group, null, () => toggle(node, group));
  button.serialize = false;
  button.options.serialize = false;
}

/** Whether every widget of the definition is there and has a group. */
function canGroup(node, nodeData) {
  const known = definitions(nodeData);
  return [...known].every(([name, spec]) => spec[1]?.[GROUP] && node.widgets?.some((widget) => widget.name === name));
}

app.registerExtension({
  name: "hunyuan3dlowvram.groups",

  init: readWords,

  async beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return;
    const { configure, onSerialize } = nodeType.prototype;
    nodeType.prototype.configure = function (saved) {
      if (!this.lowvramOpen) return configure.call(this, saved);
      this.widgets = inOrder(this);
      configure.call(this, saved);
      this.lowvramOpen = new Set(this.properties[SAVED] ?? OPEN);
      openChanged(this);
      show(this);
    };
    nodeType.prototype.onSerialize = function (saved) {
      onSerialize?.call(this, saved);
      if (!this.lowvramOpen) return;
      saved.widgets_values = inOrder(this).filter((widget) => widget.serialize !== false).map((widget) => widget.value);
    };
  },

  async nodeCreated(node) {
    if (node.comfyClass !== NODE || !canGroup(node, node.constructor.nodeData)) return;
    node.lowvramDefinitions = definitions(node.constructor.nodeData);
    node.lowvramOpen = new Set(OPEN);
    for (const widget of declared(node)) {
      widget.advanced = widget.options.advanced = false; // their group is folded instead
    }
    for (const group of new Set(declared(node).map((widget) => groupOf(node, widget)))) addButton(node, group);
    show(node);
    fit(node);
  },
});
