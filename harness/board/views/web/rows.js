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
    const heads = table.createTHead().insertRow();
    for (const name of data.columns) {
      const head = element("th", name);
      head.scope = "col";
      heads.append(head);
    }
    const body = table.createTBody();
    for (const line of lines) {
      const row = body.insertRow();
      data.columns.forEach((_, index) => {
        const cell = element(index ? "td" : "th", line[index] || (index ? "–" : ""));
        if (!index) cell.scope = "row";
        else cell.className = index === 5 && line.length > data.columns.length ? `num ${line[line.length - 1]}` : "num";
        row.append(cell);
      });
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
