"""How many judgments a second: our client against `alpaca_eval`'s own, on a loopback server that takes 50 ms to answer.

    python benchmarks/judge.py

The server is a process of its own. Ours keeps every answer in the store as it arrives; theirs runs at its default settings.
Both take turns, and each ratio is of one round. Processor time is the client's alone: on a machine that does other work it says
more than the rate. Writes results/judge.json and results/judge.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "loopback",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "[[A]]"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105},
    }
).encode()
REPLY = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER


class Connection(asyncio.Protocol):
    """Reads requests and answers each a while later; what it takes is little, so that clients have the processor."""

    def __init__(self, latency: float) -> None:
        self.latency, self.waiting = latency, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = self.waiting[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self.waiting) < end + 4 + length:
                return
            self.waiting = self.waiting[end + 4 + length :]
            asyncio.get_running_loop().call_later(self.latency, self.transport.write, REPLY)


def serve(port: Any, latency: float) -> None:
    async def forever() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Connection(latency), "127.0.0.1", 0, backlog=1024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


@contextlib.contextmanager
def serving(latency: float) -> Iterator[str]:
    """The server's address."""
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port, latency), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{port.get()}/v1"
    finally:
        server.terminate()


@dataclass(frozen=True)
class Taken:
    """What judgments took. `cpu_ms` is processor time for one, in milliseconds."""

    per_second: float
    cpu_ms: float


@contextlib.contextmanager
def measured(count: int, found: list[Taken]) -> Iterator[None]:
    started, used = time.perf_counter(), time.process_time()
    yield
    found.append(Taken(count / (time.perf_counter() - started), (time.process_time() - used) / count * 1000))


def ours(url: str, texts: list[str], concurrency: int) -> Taken:
    from harness.api.types import Message
    from harness.models.judge.judge import Judge
    from harness.models.judge.settings import JudgeSettings
    from harness.store import Store

    settings = JudgeSettings(model="loopback", base_url=url, concurrency=concurrency)
    found: list[Taken] = []
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(settings, Store(Path(folder)), "benchmark", None, lambda *progress: None)
        with measured(len(texts), found):
            judgments = judge.judge([(Message("user", text),) for text in texts], lambda answer: answer.text, {})
    assert all(judgment.parsed for judgment in judgments)
    return found[0]


def theirs(url: str, texts: list[str]) -> Taken:
    """`alpaca_eval.decoders.openai` at its default settings."""
    os.environ["OPENAI_API_KEY"] = "none"
    found: list[Taken] = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        from alpaca_eval.decoders.openai import openai_completions

        logging.getLogger().setLevel(logging.ERROR)
        config = Path(folder) / "clients.yaml"
        config.write_text(f"default:\n  - api_key: none\n    base_url: {url}\n")
        prompts = [f"<|im_start|>user\n{text}\n<|im_end|>" for text in texts]
        with measured(len(texts), found):
            made = openai_completions(prompts, "gpt-4", max_tokens=5, temperature=0, client_config_path=config)
    assert len(made["completions"]) == len(texts)
    return found[0]


def one_round(url: str, options: argparse.Namespace) -> dict[str, Any]:
    rates = {}
    for concurrency in options.concurrency:
        rates[concurrency] = asdict(ours(url, [f"question {number}" for number in range(options.judgments)], concurrency))
    other = asdict(theirs(url, [f"question {number}" for number in range(options.theirs)]))
    return {"ours": rates, "alpaca_eval": other, "load_average": os.getloadavg()[0]}


def middle(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def markdown(options: argparse.Namespace, rounds: list[dict[str, Any]]) -> str:
    """One line per concurrency: medians over the rounds, with the range."""
    others = [found["alpaca_eval"] for found in rounds]
    load = middle([found["load_average"] for found in rounds])
    rate, used = (middle([other[field] for other in others]) for field in ("per_second", "cpu_ms"))
    lines = [
        "# Judgments a second",
        "",
        f"{options.judgments} judgments on a loopback server that takes {options.latency * 1000:g} ms for each,",
        f"{len(rounds)} rounds, {os.cpu_count()} cores, load average {load}. Medians with ranges; a ratio is of one round.",
        f"`alpaca_eval`'s client at its default settings: {rate} a second, {used} ms of processor time each.",
        "`judge.py` says how it is taken.",
        "",
        "| concurrency | judgments a second | of concurrency / latency | times alpaca_eval's | processor time each, ms |",
        "|---|---|---|---|---|",
    ]
    for concurrency in options.concurrency:
        own = [found["ours"][concurrency] for found in rounds]
        rates = [row["per_second"] for row in own]
        bound = middle([rate * options.latency / concurrency for rate in rates])
        times = middle([rate / other["per_second"] for rate, other in zip(rates, others, strict=True)])
        lines.append(f"| {concurrency} | {middle(rates)} | {bound} | {times} | {middle([row['cpu_ms'] for row in own])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=2000)
    parser.add_argument("--theirs", type=int, default=200, help="judgments of their client, which is slower")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print, and write no results")
    options = parser.parse_args()
    with serving(options.latency) as url:
        ours(url, ["warm up"], 1)
        theirs(url, ["warm up"])
        rounds = [one_round(url, options) for _ in range(options.rounds)]
    text = markdown(options, rounds)
    print(text)
    if not options.dry:
        about = {"latency": options.latency, "judgments": options.judgments, "cores": os.cpu_count()}
        (RESULTS / "judge.json").write_text(json.dumps({**about, "rounds": rounds}, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "judge.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
