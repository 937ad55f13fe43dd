"""Symbols of the book's mathematics: those that formulas use, and those that notation.md lists."""

import re

DECORATED = re.compile(r"\\(hat|tilde|bar|check)\s*\{?\s*(\\[A-Za-z]+|[A-Za-z])\s*\}?")
COMMAND = re.compile(r"\\([A-Za-z]+)")
GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "chi",
    "psi",
    "omega",
    "Gamma",
    "Delta",
    "Theta",
    "Lambda",
    "Xi",
    "Pi",
    "Sigma",
    "Phi",
    "Psi",
    "Omega",
    "ell",
]
PRODUCTS = ("rp",)
"""Letters side by side that are a product; other letters side by side are a word, or axes."""
CALLIGRAPHIC = re.compile(r"\\mathcal\s*\{?([A-Z])\}?")


def symbols(formula: str) -> set[str]:
    """Letters of a formula with their decoration: `\\hat y`, `M'`, `\\beta`, `x`.

    Words (`\\text{...}`, names of two or more letters in subscripts) and operators are left out.
    """
    text = re.sub(r"\\operatorname\*?\s*\{[^{}]*\}|\\(?:text|mathrm)\s*\{[^{}]*\}", " ", formula)
    text = re.sub(r"\\(?:begin|end)\s*\{[^{}]*\}", " ", text)
    found = set()

    def keep(name: str) -> str:
        found.add(name)
        return " "

    text = CALLIGRAPHIC.sub(lambda m: keep(f"\\mathcal {m[1]}"), text)
    text = re.sub(
        DECORATED.pattern + r"('|\^\{?\\prime)?",
        lambda m: keep(f"\\{m[1]} {m[2]}" + ("'" if m[3] else "")),
        text,
    )
    text = re.sub(
        r"\\(" + "|".join(GREEK) + r")(?![A-Za-z])('|\^\{?\\prime)?",
        lambda m: keep(f"\\{m[1]}" + ("'" if m[2] else "")),
        text,
    )
    text = COMMAND.sub(" ", text)
    text = re.sub(r"[A-Za-z]{2,}", lambda m: m[0] if m[0] in PRODUCTS else " ", text)
    for letter, prime in re.findall(r"([A-Za-z])('|\^\{?\\prime)?", text):
        found.add(letter + ("'" if prime else ""))
    return found
