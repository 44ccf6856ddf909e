"""The awkward data sets of `tests/cases`, found and decoded: each is read, warned about or refused as it has to be.

What needs the gate, a config or a machine of its own is the benchmark's (`make bench NAME=cases`).
"""

import re
from pathlib import Path

import numpy as np
import pytest
from case import Case
from odd_files import FILES
from odd_masks import MASKS
from PIL import Image

from search.config.load import load_config
from segcore.data.pairs.discovery import discover
from segcore.data.pixels.cache import build_cache
from segcore.data.pixels.cache_file import open_cache
from segcore.errors import DataError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "case", [case for case in (*MASKS, *FILES) if not case.needs_gate], ids=lambda case: case.name.replace(" ", "-")
)
def test_an_awkward_data_set_is_read_as_its_owner_means_it(case: Case, tmp_path: Path) -> None:
    truth = case.make(tmp_path / "data")
    height, width = next(iter(truth.values())).shape
    settings = (f"root={tmp_path / 'data'}", f"cache_dir={tmp_path / 'cache'}", f"image_size=[{height}, {width}]")
    (tmp_path / "config.yaml").write_text("{data: {val_fraction: 0.25}}")
    config = load_config(tmp_path / "config.yaml", [*(f"data.{setting}" for setting in settings), *case.settings]).data
    if case.expected == "asks":
        with pytest.raises(DataError, match=case.says):
            build_cache(discover(config), config)
        assert not list(tmp_path.rglob("*.arrow"))
        return
    index = discover(config)
    with open_cache(build_cache(index, config)) as cache:
        warnings = "\n".join([*index.warnings, *cache.warnings])
        masks = {name.split("/")[-1].split(".")[0].casefold(): cache.mask(i) for i, name in enumerate(cache.names)}
    assert re.search(case.says, warnings)
    if case.expected == "reads" or not case.says:
        for name, true in truth.items():
            size = (true.shape[1], true.shape[0])
            read = np.array(Image.fromarray(masks[name.casefold()]).resize(size, Image.Resampling.NEAREST)) > 0
            union = (read | true).sum()
            assert not union or (read & true).sum() / union >= (1.0 if case.expected == "reads" else 0.97), name
