import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from seg_pruning.surgery.errors import PruningError
from seg_pruning.tracking import MetricsFile, choose_loggers, weights_and_biases


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    """No key, no mode, wherever the tests run."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def told(monkeypatch):
    lines = []
    monkeypatch.setattr("seg_pruning.tracking.loggers.rank_zero_info", lines.append)
    return lines


@pytest.mark.parametrize("configured", [None, True])
def test_without_key_and_logger_one_line_says_how(configured, tmp_path, monkeypatch):
    lines = told(monkeypatch)
    (logger,) = choose_loggers(configured, folder=tmp_path / "run")
    assert isinstance(logger, MetricsFile)
    assert logger.log_dir.rstrip("/") == str(tmp_path / "run")
    assert lines == [weights_and_biases.HINT]
    assert "\n" not in lines[0]
    assert "wandb login" in lines[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_MODE"])
def test_a_key_or_a_mode_switches_wandb_on(variable, tmp_path, monkeypatch):
    lines = told(monkeypatch)
    monkeypatch.setenv(variable, "offline")
    metrics, logger = choose_loggers(None, folder=tmp_path / "run")
    assert isinstance(metrics, MetricsFile)
    assert isinstance(logger, WandbLogger)
    assert (logger.name, logger.save_dir) == ("seg_pruning", str(tmp_path / "run"))
    assert lines == []


def test_a_stored_key_is_found(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert weights_and_biases.has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.hospital.org/")
    assert not weights_and_biases.has_key()


def test_disabled_means_no_wandb_and_no_hint(tmp_path, monkeypatch):
    lines = told(monkeypatch)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert len(choose_loggers(None, folder=tmp_path)) == 1
    assert lines == []


def test_what_is_configured_is_kept_beside_the_metrics_file(tmp_path, monkeypatch):
    lines = told(monkeypatch)
    mine = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path), WandbLogger(mode="offline")]
    assert choose_loggers(mine, folder=tmp_path)[1:] == mine
    assert choose_loggers(mine[0], folder=tmp_path)[1:] == mine[:1]
    assert choose_loggers(False, folder=tmp_path)[1:] == []
    assert lines == []


@pytest.mark.parametrize("mode", [None, "online"])
def test_wandb_without_a_key_is_refused_and_never_asks(mode, tmp_path, monkeypatch):
    monkeypatch.setattr("wandb.init", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(PruningError, match=r"no API key\. Run `wandb login` once"):
        choose_loggers(WandbLogger(mode=mode), folder=tmp_path)
    if mode:
        monkeypatch.setenv("WANDB_MODE", mode)
        with pytest.raises(PruningError, match="no API key"):
            choose_loggers(None, folder=tmp_path)
