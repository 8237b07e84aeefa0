// Light, dark, or what the system says; kept where the browser lets a file keep anything.
{
  const button = document.querySelector(".theme");
  const themes = ["system", "light", "dark"];
  let theme = "system";
  try { theme = localStorage.getItem("theme") || theme; } catch { /* private, or a file that may keep nothing */ }
  if (!themes.includes(theme)) theme = "system";
  const show = () => {
    document.documentElement.dataset.theme = theme;
    button.querySelector("span").textContent = theme;
  };
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("theme", theme); } catch { /* as above */ }
    show();
  });
  button.hidden = false;
  show();
}
