"""What a job does not say."""

from __future__ import annotations

import logging
import os
import warnings

from netslim.training import distributed

NOISE = (  # true, and nothing the reader could do about
    r".*does not have many workers.*",  # batches come from memory
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*Total length of `list` across ranks is zero.*",  # no validation split, as asked
    r".*srun.*command is available.*",
    r".*Checkpoint directory .* exists and is not empty.*",  # that is what resuming means
    r".*add the following callbacks: \[.ModelCheckpoint\{[^\]]*\]\.$",  # what wrote last.ckpt once
    r".*It is recommended to use `self.log.*sync_dist=True",  # rank 0 measures the slim network alone
)


def quiet(results_only: bool = False) -> None:
    """Lightning's lines once, through Hydra's logging, warnings and worse only; no warnings without a remedy.

    results_only: as quiet=true: no bars either, and no lines about what goes well.
    """
    if results_only:
        os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger("hydra").setLevel(logging.WARNING if results_only else logging.NOTSET)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    for name in ("onnxscript", "onnx_ir"):  # an export tells every step
        logging.getLogger(name).setLevel(logging.WARNING)
    silent = results_only or not distributed.is_rank_zero()  # rank 0 says it
    logging.getLogger("netslim").setLevel(logging.WARNING if silent else logging.NOTSET)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
