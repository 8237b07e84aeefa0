// One figure of several is shown at a time; without scripts, and in print, the page's style says which are.
for (const pick of document.querySelectorAll(".pick")) {
  const label = pick.querySelector(".choose");
  if (!label) continue;
  const figures = [...pick.querySelectorAll(":scope > [data-figure]")];
  const select = label.querySelector("select");
  select.addEventListener("change", () => {
    figures.forEach((figure, index) => figure.classList.toggle("chosen", index === Number(select.value)));
  });
  label.hidden = false;
}
