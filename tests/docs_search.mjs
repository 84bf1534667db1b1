// Ask the built site's own search. Run: node docs_search.mjs SITE < questions.json > hits.json
// It reads a JSON list of questions and writes, for each of them, the list of its hits in the order
// of the page: [{"location": "how-to/lightning.html#find", "title": "..."}, ...], ten at most.
// The ranking is the site's: this script runs the file that a browser runs as its web worker.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { runInThisContext } from "node:vm";

// The messages between the page and its worker.
const SETUP = 0, READY = 1, QUERY = 2, RESULT = 3;

const site = process.argv[2];
const questions = JSON.parse(readFileSync(0, "utf8"));
const index = JSON.parse(readFileSync(join(site, "search.json"), "utf8"));

// A worker's global object, as far as the search uses it: the page's postMessage goes to onmessage,
// and the worker's postMessage comes back here.
let answer;
globalThis.self = { postMessage: (message) => answer(message) };
const folder = join(site, "assets", "javascripts", "workers");
const worker = readdirSync(folder).find((name) => /^search\..*\.js$/.test(name));
runInThisContext(readFileSync(join(folder, worker), "utf8"));

async function ask(type, data, expected) {
  const message = await new Promise((resolve) => {
    answer = resolve;
    self.onmessage({ data: { type, data } });
  });
  if (message.type !== expected) throw new Error(`the worker answered ${JSON.stringify(message)}`);
  return message.data;
}

// What the page sends for a question that a reader types: no tags chosen, HTML escaped.
function query(question) {
  const escapes = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  return {
    input: question.replace(/[&<>]/g, (character) => escapes[character]),
    filter: { input: { type: "operator", data: { operator: "and", operands: [] } } },
  };
}

await ask(SETUP, index, READY);
const hits = [];
for (const question of questions) {
  const { items } = await ask(QUERY, query(question), RESULT);
  hits.push(items.map(({ id }) => ({
    location: index.items[id].location,
    title: index.items[id].title.replace(/<[^>]*>/g, "").trim(),
  })));
}
process.stdout.write(JSON.stringify(hits));
