"use strict";
(function () {
  const record = JSON.parse(document.getElementById("data").textContent);
  const byName = new Map(record.candidates.map((candidate) => [candidate.name, candidate]));
  const body = document.querySelector("tbody");
  const rows = Array.from(body.rows);
  const show = document.getElementById("show");
  const key = "cryolithe-curate:" + record.id;

  function recall() {
    try {
      return localStorage.getItem(key);
    } catch (error) {
      return null; // storage may be forbidden for pages opened from disk
    }
  }

  let chosen = remembered(record, recall());

  function say(text) {
    document.getElementById("message").textContent = text;
  }

  function store() {
    try {
      localStorage.setItem(key, JSON.stringify(chosen));
    } catch (error) {
      say("This browser keeps nothing: save the choices before closing the page.");
    }
  }

  function draw() {
    for (const row of rows) {
      const one = chosen[row.dataset.name];
      row.classList.toggle("kept", one.keep);
      row.querySelector("input").checked = one.keep;
      row.querySelector(".keep span").textContent = one.keep ? "keep" : "reject";
      const text = row.querySelector("textarea");
      if (text.value !== one.comment) text.value = one.comment;
      row.hidden = show.value !== "all" && (show.value === "kept") !== one.keep;
    }
    const n = counts(record, chosen);
    document.getElementById("counts").textContent =
      n.kept + " of " + record.candidates.length + " kept, " + n.rejected + " rejected";
    document.getElementById("save-manifest").disabled = !record.manifest || !n.kept;
  }

  function choose(row, keep) {
    chosen[row.dataset.name].keep = keep;
    store();
    draw();
  }

  function download(name, type, text) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: type }));
    link.download = name;
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(name + " was saved to the browser's folder for downloads.");
  }

  function saveManifest() {
    const text = manifestText(record, chosen);
    if (text) download("manifest.yaml", "application/yaml", text);
    else say(record.manifest ? "Nothing is kept." : "There is no manifest for these files: save the choices instead.");
  }

  function sort(button) {
    const head = button.closest("th");
    const name = button.dataset.sort;
    // More is better in some columns: those start with the most.
    const first = ["score", "fsc_mean", "contrast", "keep"].includes(name) ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? second : first;
    for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const value = (row) => (name === "keep" ? chosen[row.dataset.name].keep : byName.get(row.dataset.name)[name]);
    rows.sort((a, b) => compare(value(a), value(b), order === "descending"));
    body.append(...rows);
  }

  function shownRows() {
    return rows.filter((row) => !row.hidden);
  }

  function step(by) {
    const visible = shownRows();
    const at = visible.indexOf(document.activeElement.closest("tr"));
    const next = visible[Math.max(0, Math.min(visible.length - 1, at + by))];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "center" });
  }

  function decide(row, keep) {
    const visible = shownRows();
    const after = visible[visible.indexOf(row) + 1] || row;
    choose(row, keep);
    after.focus({ preventScroll: true });
    after.scrollIntoView({ block: "center" });
  }

  function onKey(event) {
    const typing = event.target.matches("textarea, select");
    if (event.key === "Escape" && typing) event.target.closest("tr")?.focus();
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = event.target.closest("tbody tr");
    if (event.key === "j" || event.key === "ArrowDown") step(1);
    else if (event.key === "k" || event.key === "ArrowUp") step(-1);
    else if (event.key === "s") saveManifest();
    else if (row && event.key === "y") decide(row, true);
    else if (row && event.key === "n") decide(row, false);
    else if (row && event.key === "c") row.querySelector("textarea").focus();
    else if (row && event.key === " " && event.target === row) choose(row, !chosen[row.dataset.name].keep);
    else return;
    event.preventDefault();
  }

  for (const row of rows) {
    row.querySelector("input").addEventListener("change", (event) => choose(row, event.target.checked));
    row.querySelector("textarea").addEventListener("input", (event) => {
      chosen[row.dataset.name].comment = event.target.value;
      store();
    });
  }
  for (const button of document.querySelectorAll("[data-sort]")) button.addEventListener("click", () => sort(button));
  document.addEventListener("keydown", onKey);
  document.getElementById("save-manifest").addEventListener("click", saveManifest);
  document.getElementById("save-choices").addEventListener("click", () =>
    download("choices.json", "application/json", choicesText(record, chosen)),
  );
  document.getElementById("defaults").addEventListener("click", () => {
    chosen = defaults(record);
    store();
    draw();
  });
  show.addEventListener("change", draw);
  if (!record.manifest) say("There is no manifest for these files: save the choices instead of a manifest.");
  draw();
})();
