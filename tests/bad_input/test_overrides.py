"""Any override is used, or refused in one line that names its key."""

import tempfile
from pathlib import Path

from helpers.bad_input import FUZZ, Bench, accepted_or_refused
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = (
    "length", "batch_size", "accum", "epochs", "steps", "seed", "dtype", "remat",
    "eval_fraction", "template", "row_shape", "on_bad_row", "on_long", "packing",
    "buckets", "export_dtype", "optimizer.kind", "optimizer.lr", "optimizer.schedule",
    "optimizer.warmup", "optimizer.clip_norm", "optimizer.frozen", "optimizer.b1",
    "loop.log_every", "loop.eval_every", "loop.keep_last", "loop.keep_best",
    "mesh.data", "mesh.fsdp", "optimizer", "lopp.keep_last", "checkpoint", "data",
    "eval_data",
)  # fmt: skip
VALUES = ("0", "1", "-1", "2", "3", "nan", "inf", "1e-3", "1e400", "", "None", "True",
          "x", "(1,2)", "()", "(0,128)", "(64,128)", "('*',)", "'", "1_0", "9" * 30,
          "alpaca", "full", "/", ".", "cosine")  # fmt: skip


@settings(parent=FUZZ, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES)),
        min_size=1,
        max_size=2,
    )
)
def test_any_overrides_are_used_or_refused(good, pairs):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(good, Path(folder))
        accepted_or_refused(bench, *[f"--config.{k}={v}" for k, v in pairs])
