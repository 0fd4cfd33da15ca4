"""LaTeX: a table with a caption and a label, for booktabs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from runner.report.text import Style

# The head of every file.
NEEDS = "% needs \\usepackage{booktabs} and \\usepackage{adjustbox} in the preamble"

# The width of a column's head in characters. A longer one goes on in the next line.
HEAD = 14

# Characters that no label takes.
UNUSABLE = re.compile(r"[^\w.+-]")

# Characters that mean something else to LaTeX, or nothing.
ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "±": r"$\pm$",
        "—": "---",
        "†": r"$\dagger$",
        "ε": r"$\varepsilon$",
        "−": "$-$",
    }
)


@dataclass(frozen=True)
class Latex(Style):
    """Tables that shrink to the width of the text if they are wider. `label` is the prefix of their
    labels; each ends with the first word of its corner."""

    label: str = ""

    def table(self, heads: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
        """Return a floating table."""
        corner = heads[0].partition(" ")[0]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\label{{tab:{UNUSABLE.sub('-', self.label)}{corner and '-'}{corner}}}",
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            _row([_stacked(head) for head in heads]),
            r"\midrule",
            *(_row([escaped(text) for text in texts]) for texts in body),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\end{table}",
        ]
        return "\n".join(lines)


LATEX = Latex("", "% ", "\n", words=True)


def escaped(text: str) -> str:
    """Return text in which every character prints as itself, and the sign of a number as a minus."""
    return re.sub(r"(?<![\w}])-(?=\d)", "$-$", text.translate(ESCAPES))


def _stacked(head: str) -> str:
    """Return a head in lines of few characters, one upon the other."""
    lines = [escaped(line) for line in wrap(head, HEAD, break_long_words=False)]
    return r"\shortstack[r]{" + r"\\".join(lines) + "}" if len(lines) > 1 else "".join(lines)


def _row(texts: Sequence[str]) -> str:
    # a row that begins with [ or * would be read as an option of the \\\\ before it
    return ("{}" if texts[0].startswith(("[", "*")) else "") + " & ".join(texts) + r" \\"
