// Applies the chosen theme before the first paint; without a choice, the system's theme applies.
try {
  const theme = localStorage.getItem("grok-wgpu.theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  // Without storage, no theme was chosen.
}
