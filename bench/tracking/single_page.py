"""The report's first page as one file, for viewers that show a page without its neighbours."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

STYLE = re.compile(r'<link rel="stylesheet" href="([^":]+)">')
SCRIPT = re.compile(r'<script src="([^":]+)"([^>]*)></script>')
SCRIPT_POLICY = re.compile(r"script-src (?:&#?\w+;|[^;\"&])*")
#: The file with the data of a figure, from the root.
FIGURES = re.compile(r' data-from="([^":]+)"')
PLOTLY = "assets/plotly.min.js"  # the page fetches it when a figure comes near, which one file cannot


def one_page(index: Path, root: Path | None = None) -> str | None:
    """The page with its styles and scripts inside, allowed by their hashes alone; `None` if one of them is not there.

    Args:
        index: the page; what it names is looked for from its own folder.
        root: the folder above which nothing is looked for; by default the page's own.
    """
    root, beside = (root or index.parent).resolve(), index.parent.resolve()
    page = index.read_text(encoding="utf-8")
    wanted = [match[1] for pattern in (STYLE, SCRIPT) for match in pattern.finditer(page)]
    later = list(dict.fromkeys(match[1] for match in FIGURES.finditer(page)))
    later += [PLOTLY] if "data-figure" in page else []
    texts: dict[str, str] = {}
    for name in [*wanted, *later]:
        path = ((root if name in later else beside) / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            return None
        texts[name] = path.read_text(encoding="utf-8")
    scripts = {name: re.sub(r"</(?=script)", r"<\\/", text, flags=re.IGNORECASE) for name, text in texts.items()}
    page = STYLE.sub(lambda match: f"<style>{texts[match[1]]}</style>", page)
    page = SCRIPT.sub(lambda match: f"<script{match[2]}>{scripts[match[1]]}</script>", page)
    page = page.replace("</head>", "".join(f"<script>{scripts[name]}</script>" for name in later) + "</head>", 1)
    allowed = " ".join(_hash(text) for name, text in scripts.items() if name.endswith(".js"))
    return SCRIPT_POLICY.sub(lambda _: f"script-src {allowed or _quoted('none')}", page, count=1)


def _hash(script: str) -> str:
    """How a content policy names an inline script."""
    return _quoted("sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())


def _quoted(word: str) -> str:
    return f"&#39;{word}&#39;"
