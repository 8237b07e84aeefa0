"""The web application: an index of runs, a live page for each run or several, and the pages of boards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path

import jinja2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from harness.board.files import BOARD
from harness.board.views.text import one_line, visible
from harness.config.problems import hidden
from harness.errors import DataError, HarnessError
from harness.run.executors.journal import STATUS, read_status
from harness.run.folders import RunSummary, summarise
from harness.view.boards import INDEX, BoardPages, ProvisionalBuilder
from harness.view.folders import ITSELF, OutsideError, Runs
from harness.view.guard import Guard
from harness.view.run import LiveRun

RUN_SECONDS, INDEX_SECONDS = 1.0, 2.0  # between two looks
ALIVE_SECONDS = 15.0  # between two signs of life to a page
MOST_BESIDE = 4  # runs on one page: a browser keeps six connections to one place
STATIC = {"view.js": "text/javascript", "view.css": "text/css", "style.css": "text/css", "theme.js": "text/javascript"}
# A board's page brings a policy of its own, in which its script is named by its hash. It can read nothing of this place.
BOARD_POLICY = "sandbox allow-scripts; frame-ancestors 'none'"


@dataclass
class OpenPages:
    """The state behind the pages.

    Attributes:
        streams: open pages.
    """

    runs: Runs
    streams: int = 0
    boards: BoardPages = field(default_factory=BoardPages)
    _live: dict[str, tuple[LiveRun, ProvisionalBuilder]] = field(default_factory=dict)
    _summaries: dict[Path, tuple[object, RunSummary]] = field(default_factory=dict)

    def live(self, name: str) -> tuple[LiveRun, ProvisionalBuilder]:
        """Return what follows a run. Raises HarnessError as `Runs.folder`."""
        folder = self.runs.folder(name)
        if name not in self._live:
            run = LiveRun(folder, name)
            self._live[name] = run, ProvisionalBuilder(run)
        return self._live[name]

    def index(self) -> list[dict[str, object]]:
        """Return every run in short, those that run now first, then the latest."""
        cards = []
        for folder in self.runs.folders():
            try:
                summary = self._summary(folder)
            except OSError:  # it was removed a moment ago, or cannot be read
                continue
            card = {name: one_line(value) if isinstance(value, str) else value for name, value in asdict(summary).items()}
            cards.append({**card, "id": self.runs.name(folder), "folder": one_line(self.runs.name(folder))})
        cards.sort(key=lambda card: str(card["date"]), reverse=True)
        return sorted(cards, key=lambda card: card["state"] != "running")

    def _summary(self, folder: Path) -> RunSummary:
        """Return a run's summary; its board is read again only where it has changed."""
        stamp = [
            (path.stat().st_mtime_ns, path.stat().st_size) for name in (BOARD, STATUS) if (path := folder / name).is_file()
        ]
        state = str(read_status(folder)["state"]) if self._has_status(folder) else ""
        if folder not in self._summaries or self._summaries[folder][0] != (stamp, state):
            self._summaries[folder] = (stamp, state), summarise(folder)
        return self._summaries[folder][1]

    @staticmethod
    def _has_status(folder: Path) -> bool:
        try:
            return bool(read_status(folder)["state"])
        except (HarnessError, KeyError):
            return False


def build(runs: Runs, token: str) -> tuple[Guard, OpenPages]:
    """Return the application behind its guard, and its state."""
    viewer = OpenPages(runs)
    templates = jinja2.Environment(loader=jinja2.PackageLoader("harness.view", "web"), autoescape=True)

    def page(request: Request, kind: str, names: list[str], title: str) -> Response:
        base = request.scope["root_path"]
        shown = templates.get_template("page.html").render(
            base=base, kind=kind, names=json.dumps(names), title=one_line(title), single=runs.single
        )
        return HTMLResponse(shown)

    async def home(request: Request) -> Response:
        if runs.single:
            return page(request, "runs", [ITSELF], runs.root.name)
        return page(request, "index", [], "Runs")

    async def one(request: Request) -> Response:
        name = request.path_params["name"]
        runs.folder(name)
        return page(request, "runs", [name], name if name != ITSELF else runs.root.name)

    async def beside(request: Request) -> Response:
        names = list(dict.fromkeys(request.query_params.getlist("run")))[:MOST_BESIDE]
        for name in names:
            runs.folder(name)
        return page(request, "runs", names, " and ".join(names))

    async def follow(request: Request) -> Response:
        run, builder = viewer.live(request.path_params["name"])
        return _events(_run_stream(run, builder), viewer)

    async def follow_index(request: Request) -> Response:
        return _events(_index_stream(viewer), viewer)

    async def board(request: Request) -> Response:
        name, path = request.path_params["name"], request.path_params["page"]
        run, _ = viewer.live(name)
        snapshot = await asyncio.to_thread(run.refresh)
        if snapshot.provisional:
            shown = run.provisional.page if run.provisional and path == INDEX else None
        else:
            shown = await asyncio.to_thread(viewer.boards.page, run.folder, path)
        if not shown:
            raise HarnessError("no such page")
        return HTMLResponse(shown, headers={"Content-Security-Policy": BOARD_POLICY})

    async def logs(request: Request) -> Response:
        tails = await asyncio.to_thread(runs.logs, request.path_params["name"])
        return JSONResponse([{"name": visible(name), "text": visible(hidden(text))} for name, text in tails.items()])

    async def static(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in STATIC:
            raise HarnessError("no such file")
        package = "harness.board.views" if name in ("style.css", "theme.js") else "harness.view"
        content = resources.files(package).joinpath("web", name).read_bytes()
        return Response(content, media_type=STATIC[name])

    async def refused(request: Request, error: Exception) -> Response:
        status = 403 if isinstance(error, OutsideError) else 500 if isinstance(error, DataError) else 404
        return Response(f"{visible(str(error))}\n", status, media_type="text/plain")

    routes = [
        Route("/", home),
        Route("/run/{name:path}", one),
        Route("/beside", beside),
        Route("/events", follow_index),
        Route("/events/{name:path}", follow),
        Route("/board/{name:path}/{page:path}", board),
        Route("/logs/{name:path}", logs),
        Route("/static/{file}", static),
    ]
    app = Starlette(routes=routes, exception_handlers={HarnessError: refused})
    return Guard(app, token), viewer


def _events(stream: AsyncIterator[str], viewer: OpenPages) -> Response:
    """Return a response of server-sent events, counted while it is open."""

    async def counted() -> AsyncIterator[str]:
        viewer.streams += 1
        try:
            async for text in stream:
                yield text
        finally:
            viewer.streams -= 1

    return StreamingResponse(counted(), media_type="text/event-stream")


async def _run_stream(run: LiveRun, builder: ProvisionalBuilder) -> AsyncIterator[str]:
    """Yield the run as it is now, and again whenever it has changed, and the curves that have new points."""
    last, epoch, version, quiet = "", -1, -1, 0.0
    while True:
        snapshot = await asyncio.to_thread(run.refresh)
        builder.consider(snapshot)
        if snapshot.epoch != epoch:
            epoch, version = snapshot.epoch, -1
        text = snapshot.model_dump_json()
        version, curves = await asyncio.to_thread(run.curves, version)
        quiet += RUN_SECONDS
        if text != last:
            yield f"event: run\ndata: {text}\n\n"
        for curve in curves:
            yield f"event: curve\ndata: {curve.model_dump_json()}\n\n"
        if text != last or curves:
            last, quiet = text, 0.0
        elif quiet >= ALIVE_SECONDS:
            yield ": still here\n\n"
            quiet = 0.0
        await asyncio.sleep(RUN_SECONDS)


async def _index_stream(viewer: OpenPages) -> AsyncIterator[str]:
    """Yield the list of runs, and again whenever it has changed."""
    last, quiet = "", 0.0
    while True:
        text = json.dumps(await asyncio.to_thread(viewer.index))
        quiet += INDEX_SECONDS
        if text != last or quiet >= ALIVE_SECONDS:
            yield f"event: index\ndata: {text}\n\n"
            last, quiet = text, 0.0
        await asyncio.sleep(INDEX_SECONDS)
