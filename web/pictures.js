// A setting of ComfyUI: whether nodes show pictures of the meshes that they made. The server reads it at each run.
// locales/<language>/settings.json translates its texts.
import { app } from "/scripts/app.js";

app.registerExtension({
  name: "hunyuan3dlowvram.pictures",
  settings: [
    {
      id: "hunyuan3dlowvram.pictures",
      category: ["Hunyuan3D Low VRAM", "Nodes", "pictures"],
      name: "Show a picture of the result on the nodes that make a mesh",
      tooltip: "Generate Shape, Clean Mesh, Unwrap UVs, Bake Texture and Inpaint Texture. It counts from the next run on.",
      type: "boolean",
      defaultValue: true,
    },
  ],
});
