"""Several workers at once, each with a thread, for items that know their place."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from research.lean_star.repl_worker import Worker

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Pool:
    """Workers with a thread for each; items go to the worker that knows their state."""

    def __init__(self, workers: Sequence[Worker]):
        if not workers:
            raise ValueError("workers: expected at least 1, got 0")
        self.workers = list(workers)
        self._threads = ThreadPoolExecutor(len(self.workers))
        self._turn = threading.Lock()
        self._closed = False

    def map(
        self,
        do: Callable[[Worker, Item], Answer],
        items: Sequence[Item],
        home: Callable[[Worker, Item], bool],
    ) -> list[Answer]:
        """`do(worker, item)` of all items, in their order; several at the same time.

        A worker takes the items that are at home with it, then of the longest line.
        """
        with self._turn:
            lines = self._lines(items, home)
            answers: list = [None] * len(items)
            taking = threading.Lock()

            def take(own: int) -> int | None:
                with taking:
                    if lines[own]:
                        return lines[own].popleft()
                    longest = max(lines, key=len)
                    return longest.pop() if longest else None

            def work(own: int) -> None:
                while (at := take(own)) is not None:
                    answers[at] = do(self.workers[own], items[at])

            if len(self.workers) == 1 or len(items) == 1 or self._closed:
                work(next((i for i, line in enumerate(lines) if line), 0))
            else:
                try:
                    list(self._threads.map(work, range(len(self.workers))))
                finally:  # interrupted: nothing more is begun
                    with taking:
                        for line in lines:
                            line.clear()
            return answers

    def close(self) -> None:
        """Ends all processes, and what is being asked of them."""
        self._closed = True
        for worker in self.workers:
            worker.close()
        self._threads.shutdown()

    def _lines(self, items, home) -> list[deque]:
        lines = [deque() for _ in self.workers]
        for at, item in enumerate(items):
            homes = [i for i, w in enumerate(self.workers) if home(w, item)]
            to = min(homes or range(len(lines)), key=lambda i: len(lines[i]))
            lines[to].append(at)
        return lines
