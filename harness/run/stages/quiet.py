"""What every process that computes asks of its libraries."""

from __future__ import annotations

import logging


def quiet_libraries() -> None:
    """One thread, deterministic algorithms, no bars and no chatter from the libraries."""
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
