// Sets the chosen colors before anything is painted; without a choice they are the system's.
try {
  const theme = localStorage.getItem("grok-wgpu.theme");
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  // Without storage there is no choice to remember.
}
