// The chosen theme, before the first paint (this file is the only one that is no module). The choice is kept in
// this browser; without one the system decides.
(() => {
  const root = document.documentElement;
  const read = () => { try { return localStorage.getItem("beamline-theme"); } catch { return null; } };
  const show = (theme) => {
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  };
  show(read());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const label = () => { button.title = isDark() ? "Light theme" : "Dark theme"; button.setAttribute("aria-label", button.title); };
    button.hidden = false;
    label();
    button.addEventListener("click", () => {
      const theme = isDark() ? "light" : "dark";
      show(theme);
      try { localStorage.setItem("beamline-theme", theme); } catch { /* the choice lasts as long as the page */ }
      label();
    });
  });
})();
