"""Write docs/_static/formulas.woff, the letters and signs of the formulas, for readers whose machine has no such font.

Usage: python docs/formula_font.py [/usr/share/fonts/truetype/dejavu/DejaVuMathTeXGyre.ttf]

Brackets and roots grow with what they enclose only in a font with a table MATH, which many phones lack. This one is a
part of DejaVu Math TeX Gyre, which Debian has in the package fonts-dejavu-extra; its license, which allows that under
another name, stands beside the file.
"""

import sys
from pathlib import Path

from fontTools import subset

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuMathTeXGyre.ttf"
TARGET = Path(__file__).parent / "_static" / "formulas.woff"
SIGNS = "¯±·×̂̃̄―‖…′″‴ℓℝ←→↦⇒∂∈∏∑−∘√∞≈≠≤≥⊤⋯⌈⌉⌊⌋⟨⟩⟹⪯⪰"
ITALIC = "".join(map(chr, [*range(0x1D434, 0x1D455), 0x210E, *range(0x1D456, 0x1D468), *range(0x1D6FC, 0x1D715)]))
LETTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0x3B1, 0x3CA), 0x3D5, 0x3F1, 0x3F5])) + "ΓΔΘΛΠΣΦΨΩ"


def main(font):
    """Write the part of a font, with the variants of its signs in all sizes."""
    names = "--name-IDs=0,5,13,14"  # The licence stays with it; the name of the font goes, for this is not the font.
    text = f"--text={SIGNS}{ITALIC}{LETTERS}"
    subset.main(
        [font, text, f"--output-file={TARGET}", "--flavor=woff", "--layout-features=ssty", "--no-hinting", names]
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else FONT)
