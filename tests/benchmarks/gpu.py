"""How busy a GPU is while something runs."""

import statistics
import threading

import torch


class Utilisation:
    """Samples how busy the GPU is, ten times a second; needs nvidia-ml-py."""

    def __init__(self) -> None:
        self._percent: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            try:
                self._percent.append(torch.cuda.utilization())
            except ModuleNotFoundError:
                return

    def stop(self) -> float | None:
        """Return the median in percent."""
        self._ended.set()
        self._thread.join()
        return statistics.median(self._percent) if self._percent else None
