// Adds a button to Load Mesh that uploads a mesh into ComfyUI's input folder and chooses it.
import { app } from "/scripts/app.js";
import { readWords, word } from "./lib/words.js";

const NODE = "Hy3dLowVram_LoadMesh";
const LIST = "from_list";
const FOLDER = "3d";
const MESHES = [".glb", ".gltf", ".obj", ".ply", ".stl", ".off"]; // as lowvram_core/files/formats.py reads
const BESIDE = [".bin", ".mtl", ".png", ".jpg", ".jpeg", ".webp"]; // what a mesh file may name

function endsWith(name, endings) {
  return endings.some((ending) => name.toLowerCase().endsWith(ending));
}

/** Uploads one file. Returns its path from the input folder. The server gives it another name if that is taken. */
async function uploaded(file, subfolder) {
  const body = new FormData();
  body.append("image", file);
  body.append("subfolder", subfolder);
  body.append("type", "input");
  const answer = await app.api.fetchApi("/upload/image", { method: "POST", body });
  if (!answer.ok) throw new Error(`${file.name}: ${answer.status} ${answer.statusText}`);
  const saved = await answer.json();
  return saved.subfolder ? `${saved.subfolder}/${saved.name}` : saved.name;
}

/** Uploads a mesh with the files that it names. Returns the mesh's path from the input folder. */
async function uploadMesh(files) {
  const mesh = files.find((file) => endsWith(file.name, MESHES));
  if (!mesh) throw new Error(`${word("notes", "upload_none")} ${MESHES.join(", ")}`);
  // Several files get a new folder: no name is taken there, so the mesh finds the others by their names.
  const own = files.length > 1 ? `/${mesh.name.replace(/\.[^.]*$/, "")}_${Date.now().toString(36)}` : "";
  let path = "";
  for (const file of files) {
    const saved = await uploaded(file, FOLDER + own);
    if (file === mesh) path = saved;
  }
  return path;
}

async function choose(node, files) {
  const widget = node.widgets.find((item) => item.name === LIST);
  try {
    const path = await uploadMesh(files);
    const { values } = widget.options;
    if (Array.isArray(values) && !values.includes(path)) widget.options.values = [...values, path];
    widget.value = path;
    widget.callback?.(path);
    node.setDirtyCanvas(true, true);
  } catch (error) {
    app.extensionManager.toast.add({ severity: "error", summary: word("notes", "upload_failed"), detail: error.message });
  }
}

function openFiles(node) {
  const input = document.createElement("input");
  Object.assign(input, { type: "file", multiple: true, accept: [...MESHES, ...BESIDE].join(",") });
  input.onchange = () => choose(node, [...input.files]);
  input.click();
}

app.registerExtension({
  name: "hunyuan3dlowvram.upload",

  init: readWords,

  async nodeCreated(node) {
    if (node.comfyClass !== NODE) return;
    const button = node.addWidget("button", "upload", null, () => openFiles(node), { serialize: false });
    button.label = word("notes", "upload");
    button.serialize = false;
  },
});
