"""Hooks of mkdocs: READMEs of folders are pages of the site, links lead to the files' pages.

Pages link as files of the repository do, so that they can be read there, too. What a link leads to
and the site lacks, such as source code, is named instead.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Files outside of docs/ and their pages; every room's README stands under rooms/.
OUTSIDE = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "amodal_msgs/README.md": "messages.md",
    "amodal_ros/nodes/README.md": "nodes.md",
    "launch/README.md": "launch.md",
    "amodal_core/models/README.md": "models.md",
    **{
        str(path.relative_to(ROOT)): f"rooms/{'_'.join(path.relative_to(ROOT).parent.parts)}.md"
        for path in (
            *sorted((ROOT / "amodal_core").glob("**/README.md")),
            *(ROOT / name / "README.md" for name in ("embedded_ros", "training")),
        )
        if path.parent.name != "models"
    },
}
_SOURCE = {page: source for source, page in OUTSIDE.items()}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"(```.*?```)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/, and the message files at the end of theirs."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        if source.startswith("amodal_msgs"):
            for path in sorted((ROOT / "amodal_msgs" / "msg").glob("*.msg")):
                text += f"\n## {path.stem}\n\n```\n{path.read_text(encoding='utf-8')}```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages."""
    here = page.file.src_uri
    folder = posixpath.dirname(_SOURCE.get(here, f"docs/{here}"))

    def link(match: re.Match[str]) -> str:
        bang, text, target = match.groups()
        path, hash_sign, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, path))
        for name in (place, f"{place}/README.md"):
            page_of = OUTSIDE.get(name) or name.removeprefix("docs/")
            if (name in OUTSIDE or name.startswith("docs/")) and files.get_file_from_path(page_of):
                there = posixpath.relpath(page_of, posixpath.dirname(here) or ".")
                return f"{bang}[{text}]({there}{hash_sign}{anchor})"
        return f"{text} (`{place}`)" if f"`{place}`" not in text else text

    blocks = _BLOCK.split(markdown)
    return "".join(b if b.startswith("```") else _LINK.sub(link, b) for b in blocks)
