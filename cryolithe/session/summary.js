"use strict";
// Sorts the table by a click on a title, and shows the series that fit what is typed or chosen. Without it the page is
// whole, in the order of the session.

// What a cell is ordered by: a product of sizes, the length of a shift, a number, or its text; what is not there is last.
function sortKey(text) {
  const numbers = (text.match(/-?\d+(\.\d+)?(e[-+]?\d+)?/gi) || []).map(Number);
  if (text.trim() === "–" || text.trim() === "") return Infinity;
  if (text.includes("×")) return numbers.reduce((product, number) => product * number, 1);
  if (numbers.length > 1) return Math.hypot(...numbers);
  return numbers.length ? numbers[0] : Infinity;
}

function compared(first, second, numeric, falling) {
  if (!numeric) return (falling ? -1 : 1) * first.localeCompare(second, undefined, { numeric: true });
  const [one, other] = [sortKey(first), sortKey(second)];
  if (one === other) return 0;
  if (one === Infinity || other === Infinity) return one === Infinity ? 1 : -1;
  return (falling ? -1 : 1) * (one - other);
}

function start() {
  const table = document.querySelector("table");
  const body = table.tBodies[0];
  const lines = Array.from(body.rows).map((row, at) => {
    const section = document.getElementById("s" + at);
    return { row, section, text: (row.textContent + " " + section.textContent).toLowerCase() };
  });
  const titles = Array.from(table.tHead.rows[0].cells);

  function sort(column) {
    const title = titles[column];
    const falling = title.getAttribute("aria-sort") === "ascending";
    for (const other of titles) other.removeAttribute("aria-sort");
    title.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const numeric = title.classList.contains("n");
    const cell = (line) => line.row.cells[column].textContent;
    lines.sort((a, b) => compared(cell(a), cell(b), numeric, falling));
    body.append(...lines.map((line) => line.row));
  }

  titles.forEach((title, column) => {
    title.tabIndex = 0;
    title.title = "Sort by this column";
    title.addEventListener("click", () => sort(column));
    title.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(column);
    });
  });

  const typed = document.createElement("input");
  typed.type = "search";
  typed.placeholder = "Show series with …";
  typed.setAttribute("aria-label", "Show series with this text");
  const status = document.createElement("select");
  status.setAttribute("aria-label", "Show series of this status");
  const all = new Option("every status", "");
  const kinds = [...new Set(lines.map((line) => line.row.cells[1].textContent))];
  status.append(all, ...kinds.map((kind) => new Option(kind, kind)));
  const count = document.createElement("output");

  function filter() {
    const words = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const line of lines) {
      const kind = line.row.cells[1].textContent;
      const fits = (!status.value || kind === status.value) && words.every((word) => line.text.includes(word));
      line.row.hidden = line.section.hidden = !fits;
      shown += fits;
    }
    count.textContent = shown === lines.length ? "" : shown + " of " + lines.length + " series shown";
  }

  typed.addEventListener("input", filter);
  status.addEventListener("change", filter);
  const tools = document.createElement("p");
  tools.className = "tools";
  tools.append(typed, status, count);
  table.before(tools);
  filter();
}

if (typeof document !== "undefined") start();
