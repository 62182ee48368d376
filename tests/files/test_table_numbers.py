"""Numbers of tables that a user writes."""

from __future__ import annotations

import pytest

from cryolithe.denoise_training.config import read_general_config
from cryolithe.errors import SettingsError
from cryolithe.simulation import read_recipe
from cryolithe.training.config import read_train_config


@pytest.mark.parametrize(
    ("read", "text", "told"),
    [
        (read_train_config, "steps: true", "'steps': expected a number, got true"),
        (read_train_config, "learning_rate: .inf", "'learning_rate': expected a finite number, got inf"),
        (read_train_config, "loss: {l2: .nan}", "'loss.l2': expected a finite number, got nan"),
        (read_train_config, "snr_db: [-.inf, 3]", "'snr_db': expected a finite number, got -inf"),
        (read_train_config, "validation: {shape: [true, 8, 8]}", "'validation.shape': expected a number, got true"),
        (read_train_config, "data: {recipes: [{path: x, weight: true}]}", "'data.recipes.weight': expected a number"),
        (read_train_config, "augment: {extra_noise_db: [1, true]}", "'augment.extra_noise_db': expected a number"),
        (read_recipe, "series: true", "'series': expected a number, got true"),
        (read_recipe, "cell: {shape: [true, 64, 64]}", "'cell.shape': expected a number, got true"),
        (read_general_config, "kind: n2n\nplain: {weight: .inf}", "'plain.weight': expected a finite number, got inf"),
    ],
)
def test_no_switch_and_no_infinity_stands_for_a_number(tmp_path, read, text, told):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as error:
        read(path)
    assert told in str(error.value)


@pytest.mark.parametrize("text", ["compile: true", "data: {plain_pool: true, plain_weight: 1}", "start: true"])
def test_switches_are_switches(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    if text.startswith("start"):
        with pytest.raises(SettingsError, match="valid string"):
            read_train_config(path)
    else:
        read_train_config(path)
