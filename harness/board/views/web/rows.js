// A row's statistics are put in when it is opened: most never are.
{
  const element = (name, text) => {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  };
  let data = null;
  const fill = (details) => {
    const place = details.querySelector(".numbers");
    if (place.firstChild) return;
    data = data || JSON.parse(document.getElementById("numbers-data").textContent);
    const lines = data.rows[Number(details.dataset.numbers)];
    if (!lines.length) return;
    const table = document.createElement("table");
    table.className = "dense";
    const caption = element("caption", "All statistics of this row");
    caption.className = "hidden";
    table.append(caption);
    // An interval stands below its number, and a column that no metric fills is left out.
    const below = (index) => (data.columns[index + 1] || "").startsWith("Interval") ? index + 1 : 0;
    const shown = data.columns.map((_, index) => index).filter((index) => {
      return !data.columns[index].startsWith("Interval") && (index === 0 || lines.some((line) => line[index]));
    });
    const heads = table.createTHead().insertRow();
    for (const index of shown) {
      const head = element("th", data.columns[index]);
      head.scope = "col";
      heads.append(head);
    }
    const body = table.createTBody();
    for (const line of lines) {
      const row = body.insertRow();
      for (const index of shown) {
        const cell = element(index ? "td" : "th", index ? line[index] || "–" : "");
        if (!index) {
          cell.scope = "row";
          for (const part of line[0].split(/(?<=[/_=])/)) cell.append(part, document.createElement("wbr"));
        } else cell.className = "num";
        if (data.columns[index] === "Δ" && line.length > data.columns.length) cell.classList.add(line[line.length - 1]);
        if (below(index) && line[below(index)]) cell.append(element("small", line[below(index)]));
        row.append(cell);
      }
    }
    place.className = "numbers scroll";
    place.tabIndex = 0;
    place.setAttribute("role", "region");
    place.setAttribute("aria-label", `Statistics of ${details.querySelector(".method").textContent}`);
    place.append(table);
  };
  const open = () => {
    const details = /^#row-\d+$/.test(location.hash) && document.querySelector(location.hash);
    if (!details) return;
    details.hidden = false;
    details.open = true;
    fill(details);
    details.querySelector("summary").focus({ preventScroll: true });
    details.scrollIntoView();
  };
  for (const details of document.querySelectorAll("details.row")) {
    details.addEventListener("toggle", () => details.open && fill(details));
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#row-"]');
    if (link && link.hash === location.hash) open();
  });
  addEventListener("hashchange", open);
  open();
}
