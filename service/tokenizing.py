"""How are long texts tokenised beside the event loop, and how many may wait for that?

Knows nothing about variants or HTTP.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.encoding import Encoding
from service.errors import STOPPING, DrainingError, QueueFullError, RequestTimeoutError
from service.tokenizer import TextInput, TextTokenizer

THREADS = 2


class TokenizingThreads:
    """Threads for texts that would hold the event loop; `max_items` texts may be with them, use from that loop."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._num_items = 0
        self._threads = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="tokenize")

    async def encode(
        self, tokenizer: TextTokenizer, inputs: Sequence[TextInput], max_tokens: int, deadline_s: float
    ) -> list[Encoding]:
        """As `TextTokenizer.encode`, until `deadline_s` in the event loop's time.

        Raises QueueFullError, DrainingError after `close`, and RequestTimeoutError.
        """
        if self._num_items + len(inputs) > self._max_items:
            raise QueueFullError(
                f"{self._num_items} texts wait to be tokenised (limit {self._max_items}); try again later"
            )
        self._num_items += len(inputs)
        try:
            async with asyncio.timeout_at(deadline_s):
                return await self._begin(tokenizer, inputs, max_tokens)
        except TimeoutError as error:
            raise RequestTimeoutError("the texts were not tokenised in time") from error
        finally:
            self._num_items -= len(inputs)

    def _begin(
        self, tokenizer: TextTokenizer, inputs: Sequence[TextInput], max_tokens: int
    ) -> asyncio.Future[list[Encoding]]:
        try:
            return asyncio.get_running_loop().run_in_executor(self._threads, tokenizer.encode, inputs, max_tokens)
        except RuntimeError as error:
            raise DrainingError(STOPPING) from error

    def close(self) -> None:
        """Take no more; what waits is forgotten."""
        self._threads.shutdown(wait=False, cancel_futures=True)
