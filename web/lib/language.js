// The translators to the user's language, from web/messages/.
import { translator } from "./messages.js";
import { locale } from "./words.js";

const TRANSLATED = ["ko"];
const loading = {};

/**
 * Returns the function that translates to the language of the settings. English is left as it is.
 * The kind is what follows the language in the file's name: "" for errors, "_progress" for running nodes.
 */
export async function language(kind = "") {
  const wanted = locale();
  if (!TRANSLATED.includes(wanted)) return (text) => text;
  loading[wanted + kind] ??= load(wanted + kind);
  return loading[wanted + kind];
}

async function load(name) {
  try {
    const answer = await fetch(new URL(`../messages/${name}.json`, import.meta.url), { cache: "no-cache" });
    return translator(await answer.json());
  } catch (error) {
    console.warn("Hunyuan3D Low VRAM: no translation of messages", error);
    delete loading[name];
    return (text) => text;
  }
}
