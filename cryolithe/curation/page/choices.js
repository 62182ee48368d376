"use strict";
// From the sheet's record and what was chosen to texts to save. No page is needed: tests run this alone.
// `chosen` maps a candidate's name to {keep, comment}.

function counts(record, chosen) {
  const kept = record.candidates.filter((candidate) => chosen[candidate.name].keep).length;
  return { kept: kept, rejected: record.candidates.length - kept };
}

function defaults(record) {
  const chosen = {};
  for (const candidate of record.candidates) {
    chosen[candidate.name] = { keep: candidate.keep, comment: candidate.comment };
  }
  return chosen;
}

// What a browser remembered, where it fits; names that are not on this sheet are passed over.
function remembered(record, text) {
  const chosen = defaults(record);
  let stored = {};
  try {
    stored = JSON.parse(text) || {};
  } catch (error) {
    return chosen;
  }
  for (const name of Object.keys(chosen)) {
    const one = stored[name];
    if (one && typeof one.keep === "boolean" && typeof one.comment === "string") {
      chosen[name] = { keep: one.keep, comment: one.comment };
    }
  }
  return chosen;
}

// JSON is YAML, but for raw control characters and line separators, which YAML refuses or folds.
function asYaml(value) {
  return JSON.stringify(value).replace(
    /[\u007f-\u009f\u2028\u2029\ufeff\ufffe\uffff]/g,
    (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}

// The manifest with the pairs that are kept, or null where there is no manifest or nothing is kept.
function manifestText(record, chosen) {
  if (!record.manifest) return null;
  const pairs = [];
  for (const pair of record.manifest.pairs) {
    const one = chosen[pair.name];
    if (!one || !one.keep) continue;
    const copy = Object.assign({}, pair);
    delete copy.note;
    if (one.comment.trim()) copy.note = one.comment.trim();
    pairs.push(copy);
  }
  if (!pairs.length) return null;
  const lines = [];
  for (const key of Object.keys(record.manifest)) {
    if (key !== "pairs") lines.push(key + ": " + asYaml(record.manifest[key]));
  }
  lines.push("pairs:");
  for (const pair of pairs) lines.push("  - " + asYaml(pair));
  return lines.join("\n") + "\n";
}

function choicesText(record, chosen) {
  const candidates = record.candidates.map((candidate) => Object.assign({}, candidate, chosen[candidate.name]));
  return JSON.stringify(Object.assign({}, record, { candidates: candidates }), null, 2) + "\n";
}

// Order of two values; what is missing comes last either way.
function compare(a, b, descending) {
  const missing = (value) => value === null || value === undefined;
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  const order = typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return descending ? -order : order;
}
