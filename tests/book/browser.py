"""One headless Chromium without network, and what a page must satisfy in it."""

import re
import shutil
from contextlib import contextmanager
from pathlib import Path

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
]
WIDTHS = (1400, 390)
SCHEMES = ("light", "dark")
TYPESET = (
    "() => !window.MathJax || !window.MathJax.startup "
    "|| window.MathJax.startup.promise.then(() => true)"
)
# Colours fade over from one scheme to the other; what never ends, a spinner, is not waited for.
FADED = """async () => {
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.all(document.getAnimations()
    .filter(a => a.effect.getComputedTiming().endTime !== Infinity)
    .map(a => a.finished.catch(() => null)));
}"""
# Most elements of a chapter and of the reference are words of code, and axe's time grows with their
# number. A span with nothing but a class can break one rule only, that of contrast, and the answer
# is the same for all words of one class in one place (the classes around them, in sight or not).
# So the first of each stays, and the others become plain text.
MERGE_WORDS_OF_CODE = """() => {
  const CODE = '.highlight pre span[class], code span[class], .sig span[class]';
  const places = new Map(), seen = new Set();
  const place = e => {
    if (!e) return '';
    if (!places.has(e)) places.set(e, `${place(e.parentElement)}>${e.localName}.${e.className}`);
    return places.get(e);
  };
  const wasSeen = e => {
    const inSight = e.checkVisibility({visibilityProperty: true, opacityProperty: true});
    const key = [place(e), getComputedStyle(e).color, inSight].join();
    return seen.has(key) || !seen.add(key);
  };
  const first = new Set();
  for (let again = [0]; again.length;) {  // spans stand in spans, so that a round makes new words
    const words = [...document.querySelectorAll(CODE)]
      .filter(e => e.attributes.length === 1 && !e.childElementCount && !first.has(e));
    again = words.filter(e => wasSeen(e) || !first.add(e));
    again.forEach(e => e.replaceWith(e.textContent));
  }
}"""
PAPER = 680  # CSS pixels between the margins of A4
CUT = """() => {
  const page = document.querySelector('.bd-article').getBoundingClientRect();
  const kinds = 'pre, table, figure, img, div.math, .shape-line, .frame-strip, p';
  return [...document.querySelectorAll('.bd-article :is(' + kinds + ')')]
    .filter(e => e.offsetParent && e.clientWidth > 1)  // a title for screen readers has one pixel
    .filter(e => e.getBoundingClientRect().right > page.right + 1
      || (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline'))
    .map(e => `${e.localName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`);
}"""
AXE_RUN = """async () => {
  const found = await axe.run(document, {
    runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']},
    resultTypes: ['violations'],
    preload: false,  // it would fetch the style sheets again, which a page from disk may not
  });
  return found.violations.map(v => `${v.id}: ${v.nodes.length} x ${v.nodes[0].html.slice(0, 160)}`);
}"""


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def chromium():
    """A browser; closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A page of a book opened from disk; collects failed requests and console errors."""

    def __init__(self, browser, scheme: str = "light", width: int = WIDTHS[0]):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        self.context.route(re.compile("^https?:"), self._refuse)
        self.complaints: list[str] = []
        self.page = self.context.new_page()
        self.page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url}"))
        self.page.on("pageerror", lambda e: self.complaints.append(f"script error: {e}"))
        self.page.on("console", self._console)

    def _refuse(self, route):
        self.complaints.append(f"asked the network: {route.request.url}")
        route.abort()

    def _console(self, message):
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def open(self, path: Path, query: str = ""):
        self.page.goto(f"{path.as_uri()}{query}")
        self.page.evaluate(TYPESET)

    def close(self):
        self.context.close()


def unset_math(page) -> list[str]:
    """Math in the source that was not typeset, or was typeset as an error."""
    return page.evaluate(
        """() => [...document.querySelectorAll('span.math, div.math')]
          .filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror'))
          .map(e => e.textContent.trim().slice(0, 80))"""
    )


def overflow(page) -> int:
    """CSS pixels by which the page is wider than the window."""
    return page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")


def cut_in_print(page) -> list[str]:
    """What a printed page would not show to its right end: paper does not scroll."""
    size = page.viewport_size
    page.emulate_media(media="print")
    page.set_viewport_size({"width": PAPER, "height": 960})
    found = page.evaluate(CUT)
    page.emulate_media(media="screen")
    page.set_viewport_size(size)
    return found


def when_printed(page, expression: str):
    """The value of an expression at the moment at which the browser has prepared its print."""
    page.evaluate(f"() => addEventListener('beforeprint', () => window.printed = {expression})")
    page.pdf(format="A4")
    return page.evaluate("() => window.printed")


def set_scheme(page, scheme: str):
    """Light or dark by the system setting, which the book follows unless told otherwise."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("s => document.documentElement.dataset.theme === s", arg=scheme)
    page.evaluate(FADED)


def axe(page) -> list[str]:
    """WCAG 2.1 A and AA violations that axe-core finds; the page's code is thinned out for it."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
        page.evaluate(MERGE_WORDS_OF_CODE)
    return page.evaluate(AXE_RUN)


def move_sweep(page, strip) -> tuple[str, str, str]:
    """Alternative texts before and after one press of the right arrow key, and the value shown."""
    visible = "s => [...s.querySelectorAll('img')].filter(i => i.offsetParent).map(i => i.alt)"
    before = strip.evaluate(visible)
    strip.query_selector("input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    after = strip.evaluate(visible)
    assert len(before) == len(after) == 1, (before, after)
    return before[0], after[0], strip.query_selector("output").inner_text()
