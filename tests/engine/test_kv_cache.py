"""The cache of keys and values: each row is written at its own place, and rows that are done are dropped."""

from __future__ import annotations

import torch

from ropewalk.engine.kv_cache import KeyValueCache


def test_rows_are_written_at_their_own_places_and_dropped() -> None:
    cache = KeyValueCache(room=2)
    prompts = torch.arange(3 * 2 * 4 * 5.0).view(3, 2, 4, 5)
    for _ in range(2):
        cache.begin(prompts, -prompts)
    new = torch.full((3, 2, 1, 5), 1000.0) + torch.arange(3.0)[:, None, None, None]
    places = torch.tensor([4, 2, 5])
    cache.write(1, new, -new, places)
    for row, place in enumerate(places.tolist()):
        assert (cache.keys[1][row, :, place] == 1000 + row).all()
        assert (cache.values[1][row, :, place] == -1000 - row).all()
    assert torch.equal(cache.keys[0][:, :, :4], prompts)
    assert torch.equal(cache.keys[1][0, :, :4], prompts[0])
    cache.keep(torch.tensor([2, 0]))
    assert (cache.keys[1][0, :, 5] == 1002).all()
    assert (cache.values[1][1, :, 4] == -1000).all()
    assert [len(keys) for keys in cache.keys] == [2, 2]
