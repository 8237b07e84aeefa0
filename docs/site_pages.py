"""What the site adds to docs/: pages and files elsewhere in the repository that its pages link to, and links that find them.

An mkdocs hook. Pages link to one another as files, so that they can be read in the repository as well; on the site, a file
outside docs/ lies under `repository/`.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = "repository"
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def on_files(files: Any, config: Any) -> Any:
    """Add what is linked, and what that links to."""
    from mkdocs.structure.files import File

    waiting = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for path in sorted(linked(page) - seen):
            seen.add(path)
            if not path.startswith("docs/"):
                files.append(File.generated(config, f"{ELSEWHERE}/{path}", abs_src_path=str(ROOT / path)))
            if path.endswith(".md"):
                waiting.append(path)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to files, as they lie on the site."""
    return rewritten(markdown, in_repository(page.file.src_uri))


def linked(page: str) -> set[str]:
    """The repository's files that a page links to; both as paths from its root."""
    text = _CODE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    targets = {_resolved(page, match[2]) for match in _LINK.finditer(text)}
    return {target for target in targets if target and (ROOT / target).is_file()}


def rewritten(markdown: str, page: str) -> str:
    """The text with links between repository files turned into links between the site's; folders lose their link."""
    here = PurePosixPath(site_path(page)).parent

    def changed(match: re.Match[str]) -> str:
        target = _resolved(page, match[2])
        if target is None or not (ROOT / target).is_file():
            return match[0]
        return f"{match[1]}{posixpath.relpath(site_path(target), here)}{match[3] or ''}{match[4]}"

    return _LINK.sub(changed, markdown)


def site_path(path: str) -> str:
    """Where a repository's file lies on the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{ELSEWHERE}/{path}"


def in_repository(src_uri: str) -> str:
    """The other way round."""
    prefix = f"{ELSEWHERE}/"
    return src_uri.removeprefix(prefix) if src_uri.startswith(prefix) else f"docs/{src_uri}"


def _resolved(page: str, target: str) -> str | None:
    """A link's target as a path from the repository's root; None for addresses and what leaves the repository."""
    if re.match(r"[a-z]+:", target) or target.startswith("/"):
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
    return None if path.startswith("..") else path
