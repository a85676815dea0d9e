"""A model that workers hold, to be used like any other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ropewalk.adapters import find_adapter
from ropewalk.checkpoint import load_pretrained
from ropewalk.elsewhere import hand_over
from ropewalk.layers import text_config
from ropewalk.quantised import quantiser
from ropewalk.workers.cluster import WorkerSettings, cluster, sized
from ropewalk.workers.worker import ModelSource, Worker


@contextmanager
def on_workers(
    source: ModelSource,
    settings: WorkerSettings,
    *,
    on_cpu: bool = False,
    all_ready: bool = False,
    say: Callable[[str], None] = lambda text: None,
    make: Callable[[ModelSource, int | None], Worker] = Worker,
) -> Iterator[tuple[Any, Any]]:
    """Model and tokenizer, as `load_pretrained` gives them, but without weights: workers have those.

    Whatever scores it asks the workers: `Evaluator`, a search, a test. Begins when the first worker is ready, or, with
    all_ready, when all are. on_cpu: use no GPUs. say: told what happens to workers, in lines. make: makes a worker in
    its process, from the model's source and a number of threads.
    """
    own = Path(source.path).expanduser()
    model, tokenizer = load_pretrained(
        source.path,
        trust_remote_code=source.trust_remote_code,
        apply_factors=False,
        rope=source.rope,
        weights=False,
    )
    with cluster(settings, say):
        from ropewalk.workers.crew import living_nodes
        from ropewalk.workers.pool import Pool

        count, needs = sized(settings, list(living_nodes().values()), on_cpu=on_cpu)
        path = str(own.absolute()) if own.exists() else source.path
        ranks = needs.gpus if needs.gpus > 1 and splits_into(model, source.path, needs.gpus) else 1
        if needs.gpus > 1:
            what = "every weight (tensor parallel)" if ranks > 1 else "the layers (device_map)"
            say(f"The {needs.gpus} GPUs of a worker share {what}")
        placed = replace(source, gpus=needs.gpus, ranks=ranks)
        made = partial(_made, make, placed, None if needs.gpus else needs.cpus)
        pool = Pool(made, path, count, needs, timeout=settings.timeout, say=say)
        try:
            pool.start_up(all_of_them=all_ready)
            hand_over(model, pool)
            yield model, tokenizer
        finally:
            pool.close()


def splits_into(model: Any, path: str, parts: int) -> bool:
    """Whether transformers has a plan to split this model's weights over so many processes (`tp_plan`).

    What does not divide evenly, quantised weights and adapters get whole layers (`device_map`) instead.
    """
    config = text_config(model)
    heads = config.num_attention_heads
    sizes = (heads, getattr(config, "num_key_value_heads", None) or heads, config.intermediate_size, config.vocab_size)
    plain = quantiser(model.config) is None and find_adapter(path, on_hub=not Path(path).exists()) is None
    return bool(plain and model.supports_tp_plan and all(isinstance(size, int) and size % parts == 0 for size in sizes))


def _made(
    make: Callable[[ModelSource, int | None], Worker], source: ModelSource, threads: int | None, path: str
) -> Worker:
    return make(replace(source, path=path), threads)
