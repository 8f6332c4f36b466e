// The words that our scripts show, in the user's language: locales/<language>/main.json.
import { app } from "/scripts/app.js";

const OWN = "hunyuan3dlowvram";
const PLAIN = "en";
let asked; // a promise of what the server has
let known;

/** Returns the texts of the packs' locales folders by language. The server is asked once. */
export function languages() {
  asked ??= app.api.fetchApi("/i18n").then((answer) => answer.json());
  return asked;
}

/** Returns the user's language. */
export function locale() {
  return app.extensionManager?.setting?.get("Comfy.Locale") ?? PLAIN;
}

/** Reads the words. Call it before the first node is made. */
export async function readWords() {
  known = await languages();
}

function wordsOf(language) {
  return known?.[language]?.[OWN] ?? {};
}

/** Returns a word such as word("groups", "shape"); its name if no language has it. */
export function word(kind, name) {
  return wordsOf(locale())[kind]?.[name] ?? wordsOf(PLAIN)[kind]?.[name] ?? name;
}

/** Returns a text from the server with its English notes in the user's language. */
export function translated(text) {
  const notes = Object.entries(wordsOf(PLAIN).notes ?? {});
  return notes.reduce((told, [name, english]) => told.replace(english, word("notes", name)), text);
}
