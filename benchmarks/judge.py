"""How many judgments a second: our client against `alpaca_eval`'s own, on a loopback server that takes 50 ms to answer.

    python benchmarks/judge.py --judgments 800 --concurrency 16

The server is a process of its own. Ours writes every answer to the store as it arrives; theirs runs at its default settings.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

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


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, latency: float) -> None:
    """One connection: read a request, wait, answer, and so on."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            await asyncio.sleep(latency)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def serve(port: Any, latency: float) -> None:
    async def forever() -> None:
        server = await asyncio.start_server(lambda r, w: answer(r, w, latency), "127.0.0.1", 0, backlog=1024)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(forever())


def ours(url: str, texts: list[str], concurrency: int) -> float:
    """Judgments a second."""
    from harness.judging.judge import Judge
    from harness.judging.settings import JudgeSettings
    from harness.store import Store
    from harness.types import Message

    settings = JudgeSettings(model="loopback", base_url=url, concurrency=concurrency)
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(settings, Store(Path(folder)), "benchmark", None, lambda *progress: None)
        started = time.perf_counter()
        judgments = judge.judge([(Message("user", text),) for text in texts], lambda found: found.text, {})
        taken = time.perf_counter() - started
    assert all(judgment.parsed for judgment in judgments)
    return len(texts) / taken


def theirs(url: str, texts: list[str]) -> float:
    """Judgments a second of `alpaca_eval.decoders.openai` at its default settings."""
    os.environ["OPENAI_API_KEY"] = "none"
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from alpaca_eval.decoders.openai import openai_completions

        logging.getLogger().setLevel(logging.ERROR)
        config = Path(folder) / "clients.yaml"
        config.write_text(f"default:\n  - api_key: none\n    base_url: {url}\n")
        prompts = [f"<|im_start|>user\n{text}\n<|im_end|>" for text in texts]
        started = time.perf_counter()
        found = openai_completions(prompts, "gpt-4", max_tokens=5, temperature=0, client_config_path=config)
        taken = time.perf_counter() - started
    assert len(found["completions"]) == len(texts)
    return len(texts) / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=800)
    parser.add_argument("--theirs", type=int, default=100, help="judgments of their client, which is slower")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    arguments = parser.parse_args()
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(port, arguments.latency), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port.get()}/v1"
    try:
        ours(url, ["warm up"], 1)
        rows = []
        for concurrency in arguments.concurrency:
            rate = ours(url, [f"question {number}" for number in range(arguments.judgments)], concurrency)
            rows.append({"concurrency": concurrency, "per_second": rate, "of_bound": rate * arguments.latency / concurrency})
        other = theirs(url, [f"question {number}" for number in range(arguments.theirs)])
        print(json.dumps({"latency": arguments.latency, "ours": rows, "alpaca_eval_per_second": other}, indent=1))
        for row in rows:
            print(
                f"concurrency {row['concurrency']}: {row['per_second']:.0f}/s, {row['of_bound']:.0%} of concurrency / latency, "
                f"{row['per_second'] / other:.0f} times alpaca_eval's {other:.1f}/s"
            )
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
