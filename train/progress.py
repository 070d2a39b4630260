"""A progress bar with rate and time left on a terminal, a line at times elsewhere."""

import sys
import time

QUIET_SECONDS = 30.0


class Progress:
    """Shows steps done of a total; `update(step, note)` after each."""

    def __init__(self, total: int, start: int = 0, *, show: bool = True, unit="step"):
        self._bar = None
        self._total, self._start, self._unit = total, start, unit
        self._show = show
        self._began = self._said = time.monotonic()
        if show and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=start, unit=unit, dynamic_ncols=True, leave=True
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int, note: str = "") -> None:
        """Moves to `step` steps done; `note` is shown behind the rate."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if self._show and (now - self._said > QUIET_SECONDS or step == self._total):
            self._said = now
            print(self.line(step, now - self._began, note), file=sys.stderr, flush=True)

    def line(self, step: int, seconds: float, note: str = "") -> str:
        """The state of things as a line of text, `seconds` after the start."""
        rate = (step - self._start) / max(seconds, 1e-9)
        left = f"{_clock((self._total - step) / rate)} left" if rate else "starting"
        parts = [f"{self._unit} {step}/{self._total}", f"{rate:.3g}/s", left]
        return ", ".join(parts + ([note] if note else []))


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
