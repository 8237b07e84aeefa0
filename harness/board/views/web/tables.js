"use strict";

// Sorting: numbers as numbers, text as text; rows without a value, and failed rows, stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  table.addEventListener("click", (event) => {
    const button = event.target.closest("thead button");
    if (!button) return;
    const head = button.closest("th");
    const column = heads.indexOf(head);
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
    for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row) => {
      const key = row.cells[column].dataset.value;
      return { row, key: column === 0 ? key : Number(key), missing: row.hasAttribute("data-last") ? 2 : key === "" ? 1 : 0 };
    });
    keyed.sort((a, b) => {
      if (a.missing !== b.missing) return a.missing - b.missing;
      if (a.missing) return 0;
      return sign * (column === 0 ? a.key.localeCompare(b.key) : a.key - b.key);
    });
    body.append(...keyed.map(({ row }) => row));
  });
}

// Filtering: one filter for the rows of all tables that list methods.
{
  for (const bar of document.querySelectorAll(".filters")) bar.hidden = false;
  const bar = document.querySelector("#ranking .filters");
  const text = bar.querySelector("[data-filter]");
  const significant = bar.querySelector("[data-significant]");
  const kinds = [...bar.querySelectorAll("[data-kind]")];
  const rows = [...document.querySelectorAll("#ranking tbody tr")];
  const facts = rows.map((row) => ({
    number: row.dataset.row,
    words: row.cells[0].textContent.toLowerCase(),
    kind: row.classList[0],
    significant: row.querySelector(".delta.better, .delta.worse, .delta.different") !== null,
  }));
  const filter = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(kinds.filter((box) => box.checked).map((box) => box.dataset.kind));
    const kept = new Set();
    for (const fact of facts) {
      if (!wanted.has(fact.kind) || (significant.checked && !fact.significant)) continue;
      if (words.every((word) => fact.words.includes(word))) kept.add(fact.number);
    }
    for (const row of document.querySelectorAll("tr[data-row]")) row.hidden = !kept.has(row.dataset.row);
    for (const row of document.querySelectorAll("details.row")) row.hidden = !kept.has(row.dataset.numbers);
    bar.querySelector("[data-count]").textContent = kept.size < rows.length ? `${kept.size} of ${rows.length} rows` : "";
  };
  bar.addEventListener("input", filter);

  const columns = document.querySelector("[data-columns]");
  columns.addEventListener("input", () => {
    const words = columns.value.toLowerCase().split(/\s+/).filter(Boolean);
    const table = document.querySelector("#metrics table");
    const heads = [...table.tHead.rows[0].cells];
    const shown = heads.map((head, index) => index === 0 || words.every((word) => head.dataset.metric.toLowerCase().includes(word)));
    for (const row of table.rows) for (let index = 1; index < row.cells.length; index++) row.cells[index].hidden = !shown[index];
    const count = shown.filter(Boolean).length - 1;
    document.querySelector("[data-shown]").textContent = count < heads.length - 1 ? `${count} of ${heads.length - 1} metrics` : "";
  });
}
