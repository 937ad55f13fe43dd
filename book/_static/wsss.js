// Search results quote the pages they found, which a page opened from disk may not read.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// Names that the theme leaves out, for readers who hear the page instead of seeing it.
document.addEventListener("DOMContentLoaded", () => {
  // The button already says "Search Ctrl+K"; a shorter label beside that text contradicts it.
  document.querySelectorAll("button.search-button-field").forEach((button) => {
    button.removeAttribute("aria-label");
  });
  document.querySelectorAll("button.theme-switch-button").forEach((button) => {
    button.setAttribute("aria-label", "Color mode: Light, Dark or System Settings");
  });
  document.querySelectorAll("nav li.has-children > details > summary").forEach((summary) => {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Pages below ${link.textContent.trim()}`);
  });
});

// Paper is white, whatever the reader's screen is.
(() => {
  const page = document.documentElement;
  let theme;
  addEventListener("beforeprint", () => {
    theme = page.dataset.theme;
    page.dataset.theme = "light";
  });
  addEventListener("afterprint", () => {
    page.dataset.theme = theme;
  });
})();
