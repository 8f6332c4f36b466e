// The pack's nodes, and the nodes that the server's events name.
import { app } from "/scripts/app.js";

export const PREFIX = "Hy3dLowVram_"; // of the types of the pack's nodes

/** Returns the node of an execution id. Inside subgraphs the ids stand in a row: `5:3`. */
export function nodeOf(id) {
  let node;
  let graph = app.rootGraph ?? app.graph;
  for (const part of String(id).split(":")) {
    node = graph?.getNodeById(part) ?? graph?.getNodeById(Number(part));
    graph = node?.subgraph;
  }
  return node;
}
