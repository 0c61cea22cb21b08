// The page at /: asks this service alone, and puts what it answers on the page as text, never as markup.
"use strict";

const SHOWN_ROWS = 200;
const EXPLAINED = 5;
const POLL_MILLISECONDS = 3000;
const COMPARED_ROWS = 200; // of fewer, stability indices are noise; recalibration asks for as many
const HEIGHT = 220, BOTTOM = 30, TOP = 10, SIDE = 8;

const element = (id) => document.getElementById(id);
const state = { key: "", model: null, kinds: {}, table: null, score: null, lost: false };

// Asking.

async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(state.key && { "X-API-Key": state.key }) };
  const response = await fetch(path, { ...options, headers });
  element("key-form").hidden = response.status !== 401 && !state.key;
  const document_ = await response.json();
  if (!response.ok) throw new Error(document_.detail || document_.message || `the service answered ${response.status}.`);
  return document_;
}

const postJson = (path, body) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const postCsv = (path, body) => ask(path, { method: "POST", headers: { "Content-Type": "text/csv" }, body });

// What the reader asked for says what is wrong with it until the next thing asked; what the page asks by itself
// takes back only its own complaint.
async function attempt(work, byItself = false) {
  try {
    await work();
    if (!byItself || state.lost) element("problem").hidden = true;
    state.lost = false;
  } catch (error) {
    element("problem").textContent = error instanceof TypeError ? "The service does not answer." : error.message;
    element("problem").hidden = false;
    state.lost = byItself;
  }
}

// Building.

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && name !== "list") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

function draw(tag, attributes = {}, text = "") {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) drawn.setAttribute(name, value);
  drawn.textContent = text;
  return drawn;
}

const number = (value, digits = 4) => (Number.isFinite(value) ? String(+value.toPrecision(digits)) : "nowhere");
const percent = (share) => (share === undefined ? "" : `${(100 * share).toFixed(1)} %`);
const toSeconds = (text) => text.replace(/(T\d\d:\d\d:\d\d)\.\d+$/, "$1");
const counted = (rows) => `${rows.toLocaleString("en")} row${rows === 1 ? "" : "s"}`;
const shown = (value) => (value === null ? "missing" : typeof value === "number" ? number(value) : toSeconds(String(value)));
const regionName = (region) => make("span", { className: `region ${region}` }, region);

function makeTable(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", className: kind || "" }, text)));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, at) => make("td", { className: heads[at][1] || "" }, cell))));
  return make("table", { ariaLabel: caption }, make("thead", {}, head), make("tbody", {}, ...body));
}

// The row's form.

function buildForm(example, columns) {
  state.kinds = Object.fromEntries(columns.map((column) => [column.name, column.kind]));
  element("fields").replaceChildren(...columns.map((column) => {
    const value = example[column.name];
    const field = make("input", { name: column.name, value: value === null ? "" : String(value), autocomplete: "off" });
    if (column.kind === "numeric") field.inputMode = "decimal";
    return make("label", {}, column.name, field);
  }));
  element("score-row").disabled = false;
}

function formRow() {
  const fields = [...new FormData(element("row-form"))];
  return Object.fromEntries(fields.map(([name, text]) => [name, parsed(text.trim(), state.kinds[name])]));
}

function parsed(text, kind) {
  if (text === "") return null;
  if (kind === "boolean" && /^(true|false)$/i.test(text)) return text.toLowerCase() === "true";
  return kind === "numeric" && Number.isFinite(Number(text)) ? Number(text) : text;
}

// A table pasted or dropped.

function parseCsv(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.length > 1 || (row[0] ?? "") !== "");
}

const csvLine = (cells) => cells.map((cell) => `"${cell.replaceAll('"', '""')}"`).join(",") + "\n";

async function scoreTable() {
  const text = element("csv").value;
  const { predictions } = await postCsv("v1/score", text);
  const [header, ...rows] = parseCsv(text);
  state.table = { header, rows };
  const order = [...predictions.keys()].sort((a, b) => predictions[b].score - predictions[a].score);
  showTable(predictions, order);
  await explainRow(order[0], predictions[order[0]]);
}

function showTable(predictions, order) {
  const counts = Object.fromEntries(["normal", "unknown", "abnormal"].map((region) =>
    [region, predictions.filter((row) => row.region === region).length]));
  const more = order.length > SHOWN_ROWS ? `, the ${SHOWN_ROWS} most abnormal shown` : "";
  const summary = `${counted(order.length)}: ${Object.entries(counts).map(([region, rows]) => `${rows} ${region}`).join(", ")}${more}.`;
  const cells = order.slice(0, SHOWN_ROWS).map((at) => {
    const row = predictions[at];
    const why = make("button", { type: "button", onclick: () => attempt(() => explainRow(at, row)) }, `row ${at + 1}`);
    return [why, number(row.score), row.confidence.toFixed(3), regionName(row.region)];
  });
  const heads = [["row"], ["score", "number"], ["confidence", "number"], ["region"]];
  element("rows").replaceChildren(make("p", {}, summary), makeTable("Scored rows", heads, cells));
}

async function explainRow(at, row) {
  const { header, rows } = state.table;
  const one = rows[at] ? csvLine(header) + csvLine(rows[at]) : null;
  const answer = one ? (await postCsv(`v1/score?explain=${EXPLAINED}`, one)).predictions[0] : row;
  showAnswer(answer, `Row ${at + 1}`);
}

// The answer.

function showAnswer(answer, title) {
  const facts = [["score", number(answer.score)], ["confidence", answer.confidence.toFixed(3)],
    ["region", regionName(answer.region)],
    ["probability normal", percent((1 + answer.confidence) / 2)]];
  element("answer").replaceChildren(make("p", { className: "hint" }, title), make("dl", { className: "answer" },
    ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)))));
  const cells = (answer.features || []).map((feature) => [feature.column,
    make("span", {}, make("meter", { min: 0, max: 1, value: feature.share, ariaLabel: "share of the row's deviation" }), ` ${percent(feature.share)}`),
    shown(feature.given), feature.expected === feature.given ? "no other" : shown(feature.expected)]);
  const heads = [["column"], ["share"], ["given", "number"], ["less abnormal", "number"]];
  element("features").replaceChildren(...(cells.length ? [makeTable("Columns that contributed most", heads, cells)] : []));
  state.score = answer.score;
  attempt(refresh, true);
}

// What is served, and how its input moves.

async function refresh() {
  const [model, histogram, drift] = await Promise.all(["v1/model", "v1/histogram", "v1/drift"].map((path) => ask(path)));
  if (JSON.stringify(state.model?.columns) !== JSON.stringify(model.columns)) await offerRow(model.columns);
  state.model = model;
  describe(model);
  drawHistogram(histogram);
  showDrift(drift);
}

async function offerRow(columns) {
  const openapi = await ask("openapi.json");
  buildForm(openapi.paths["/v1/score"].post.requestBody.content["application/json"].example.records[0], columns);
}

function describe(model) {
  const name = model.name || model.uri;
  document.title = `ssad: ${name}`;
  element("title").textContent = name;
  element("subtitle").textContent = model.version ? `version ${model.version}` : "";
  const { normal, abnormal } = model.thresholds;
  const metrics = Object.entries(model.metrics || {}).filter(([metric]) => metric.startsWith("test_"));
  showCard({
    detector: model.detector, alias: model.alias, run: model.run_id, "trained at": model.trained_at,
    "training rows": model.training_rows?.toLocaleString("en"), "recalibrated at": model.recalibrated_at,
    "recalibration rows": model.recalibrated_rows?.toLocaleString("en"), "loaded at": model.loaded_at,
    thresholds: `normal up to ${number(Number(normal))}, abnormal from ${number(Number(abnormal))}`,
    [`regions at ${model.recalibrated_rows ? "recalibration" : "training"}`]: Object.entries(model.region_shares).map(([region, share]) => `${region} ${percent(share)}`).join(", "),
    test: metrics.map(([metric, value]) => `${metric.slice(5)} ${number(value, 3)}`).join(", "),
    registry: model.stale ? "has told no version for a while: the alias may have moved" : "",
  });
}

function showCard(facts) {
  const known = Object.entries(facts).filter(([, value]) => value);
  element("card").replaceChildren(...known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]));
}

function showDrift(drift) {
  if (!drift.rows) {
    element("drift").replaceChildren(make("p", { className: "hint" }, "No rows scored yet."));
    return;
  }
  const regions = ["normal", "unknown", "abnormal"].map((region) =>
    [regionName(region), percent(drift.region_shares[region]), percent(drift.training_region_shares[region])]);
  const columns = Object.entries(drift.column_psi).sort(([, a], [, b]) => b - a).slice(0, EXPLAINED)
    .map(([name, psi]) => [name, psi.toFixed(3)]);
  const few = drift.rows < COMPARED_ROWS;
  const drifted = few ? `; from ${COMPARED_ROWS} on a comparison tells something.`
    : `; the scores' stability index is ${drift.score_psi.toFixed(3)} (by custom: steady below 0.1, another population `
      + `from 0.25), Kolmogorov-Smirnov ${drift.score_ks.toFixed(3)}.`;
  element("drift").replaceChildren(
    make("p", {}, counted(drift.rows) + drifted),
    makeTable("Regions", [["region"], ["recent", "number"], ["training", "number"]], regions),
    ...(few ? [] : [makeTable("Drift of columns", [["column"], ["stability index", "number"]], columns)]));
}

// The histogram: training scores as bars by region, recent ones as a line, thresholds across both.

function drawHistogram({ edges, training, recent }) {
  const svg = element("histogram");
  const width = svg.clientWidth || 600;
  const low = Math.min(edges[0], state.score ?? Infinity), high = Math.max(edges.at(-1), state.score ?? -Infinity);
  const middle = edges[edges.length >> 1];
  const logarithmic = low > 0 && high > 10 * middle;
  const scale = logarithmic ? Math.log : (value) => value;
  const span = scale(high) - scale(low) || 1;
  const x = (value) => ((scale(Math.min(Math.max(value, low), high)) - scale(low)) / span) * (width - 2 * SIDE) + SIDE;
  const widths = training.map((_, at) => Math.max(x(edges[at + 1]) - x(edges[at]), 0.5));
  const density = (counts) => {
    const total = counts.reduce((sum, count) => sum + count, 0) || 1;
    return smoothed(counts.map((count) => count / total), widths);
  };
  const [before, now] = [density(training), density(recent)];
  const compared = recent.reduce((sum, count) => sum + count, 0) >= COMPARED_ROWS; // fewer are a few spikes
  const tallest = Math.max(...before, ...(compared ? now : []), 1e-12);
  const y = (value) => HEIGHT - BOTTOM - (value / tallest) * (HEIGHT - BOTTOM - TOP);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const bars = training.map((_, at) => draw("rect", { class: regionOf((edges[at] + edges[at + 1]) / 2),
    x: x(edges[at]), width: widths[at] + 0.3, y: y(before[at]), height: HEIGHT - BOTTOM - y(before[at]) }));
  const outline = now.flatMap((value, at) => [`${x(edges[at])},${y(value)}`, `${x(edges[at + 1])},${y(value)}`]);
  svg.replaceChildren(...bars, ...marks(x), ...axis(x, low, high, logarithmic),
    ...(compared ? [draw("polyline", { class: "recent", points: outline.join(" ") })] : []),
    ...(state.score === null ? [] : [here(x(state.score))]));
  element("histogram-caption").textContent = "Bars: training scores by region; dashed and solid: the normal and the "
    + `abnormal threshold${compared ? "; line: recent rows" : ""}${state.score === null ? "" : "; triangle: the last answer"}.`;
}

// Bins of equal mass get very narrow: neighbours share one height until they are some pixels wide.
function smoothed(shares, widths) {
  const heights = [];
  for (let start = 0; start < shares.length;) {
    let end = start, mass = 0, width = 0;
    while (end < shares.length && width < 8) { mass += shares[end]; width += widths[end]; end += 1; }
    for (; start < end; start += 1) heights.push(mass / width);
  }
  return heights;
}

function regionOf(score) {
  const { normal, abnormal } = state.model.thresholds;
  return score <= Number(normal) ? "normal" : score >= Number(abnormal) ? "abnormal" : "unknown";
}

function marks(x) {
  const { normal, abnormal } = state.model.thresholds;
  return [[normal, "4 3"], [abnormal, "none"]].filter(([at]) => Number.isFinite(Number(at))).map(([at, dash]) =>
    draw("line", { class: "threshold", x1: x(Number(at)), x2: x(Number(at)), y1: 0, y2: HEIGHT - BOTTOM, "stroke-dasharray": dash }));
}

function axis(x, low, high, logarithmic) {
  const at = [0, 1, 2, 3, 4].map((step) =>
    logarithmic ? low * (high / low) ** (step / 4) : low + ((high - low) * step) / 4);
  const anchors = ["start", "middle", "middle", "middle", "end"];
  return [draw("line", { class: "axis", x1: x(low), x2: x(high), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM }),
    ...at.map((value, step) => draw("text", { x: x(value), y: HEIGHT - 12, "text-anchor": anchors[step] }, number(value, 3)))];
}

const here = (at) => draw("path", { class: "here", d: `M${at - 6},${HEIGHT - BOTTOM + 10} l6,-9 l6,9 z` });

// Events.

element("row-form").addEventListener("submit", (event) => {
  event.preventDefault();
  element("rows").replaceChildren();
  attempt(async () => {
    const { predictions } = await postJson(`v1/score?explain=${EXPLAINED}`, { records: [formRow()] });
    showAnswer(predictions[0], "The row above");
  });
});

element("table-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(scoreTable);
});

element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => {
    state.key = sendable(element("key").value);
    return refresh();
  });
});

function sendable(key) { // in a header
  if (!/^[\x20-\x7e]+$/.test(key)) throw new Error("The key has characters that no key can have; copy it again.");
  return key;
}

async function take(file) {
  element("csv").value = await file.text();
  attempt(scoreTable);
}

element("file").addEventListener("change", (event) => event.target.files[0] && take(event.target.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    element("csv").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}

attempt(refresh, true);
// Where a key is asked for and not yet known, asking again would only be refused again.
const mayAsk = () => document.visibilityState === "visible" && (state.model || element("key-form").hidden);
setInterval(() => mayAsk() && attempt(refresh, true), POLL_MILLISECONDS);
