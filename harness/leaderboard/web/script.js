"use strict";

// Sorting: numbers as numbers, text as text; rows without a value, and failed rows, stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    button.addEventListener("click", () => {
      const opposite = { ascending: "descending", descending: "ascending" };
      const order = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const missing = (row) => (row.hasAttribute("data-last") ? 2 : key(row) === "" ? 1 : 0);
      const compare = (a, b) => {
        if (missing(a) !== missing(b)) return missing(a) - missing(b);
        if (missing(a)) return 0;
        const x = key(a), y = key(b);
        return sign * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// Examples: texts are only ever set as text.
const data = document.getElementById("examples-data");
if (data) {
  const { labels, examples, first } = JSON.parse(data.textContent);
  const viewer = document.querySelector(".viewer");
  const choose = (name) => viewer.querySelector(`[data-choose="${name}"]`);
  const fill = (select, texts, chosen) => {
    texts.forEach((text, index) => select.add(new Option(text, String(index))));
    select.value = String(chosen);
    select.addEventListener("change", show);
  };
  const put = (name, text, absent) => {
    const place = viewer.querySelector(`[data-show="${name}"]`);
    place.textContent = text === null || text === undefined ? absent : text;
    place.classList.toggle("none", text === null || text === undefined);
  };
  function show() {
    const example = examples[Number(choose("example").value)];
    put("prompt", example.prompt, "");
    put("target", example.target, "This source has no target.");
    put("left", example.answers[Number(choose("left").value)], "No answer of this method was kept.");
    put("right", example.answers[Number(choose("right").value)], "No answer of this method was kept.");
  }
  fill(choose("example"), examples.map((example) => `${example.id}: ${example.prompt.slice(0, 80)}`), 0);
  fill(choose("left"), labels, first[0]);
  fill(choose("right"), labels, first[1]);
  for (const button of viewer.querySelectorAll(".step")) {
    button.addEventListener("click", () => {
      const select = choose("example");
      select.value = String((Number(select.value) + Number(button.dataset.step) + examples.length) % examples.length);
      show();
    });
  }
  viewer.hidden = false;
  show();
}
