"""What other libraries say while a model is trained or loaded, and what stays as the user has set it."""

import logging
import warnings

import pytest

from raptorgraph import _logging
from raptorgraph._logging import quiet_libraries, show_messages

NOTES = [
    "`isinstance(treespec, LeafSpec)` is deprecated, use another",
    "The 'train_dataloader' does not have many workers which may be a bottleneck.",
    "The number of training batches (3) is smaller than the logging interval Trainer(log_every_n_steps=10).",
    "GPU available but not used. You can set it by doing `Trainer(accelerator='gpu')`.",
    "IProgress not found. Please update jupyter and ipywidgets.",
    "Checkpoint directory /tmp/x exists and is not empty.",
]


@pytest.fixture
def said():
    """Records of the loggers of scvi-tools and lightning."""
    import lightning.pytorch.utilities.rank_zero  # noqa: F401
    import scvi  # noqa: F401

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.mark.parametrize(
    "name",
    ["lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "scvi.model.base._save_load"],
)
def test_notes_are_kept_out_and_warnings_are_not(said, name):
    logger = logging.getLogger(name)
    with quiet_libraries():
        logger.info("GPU available: False, used: False")
        logger.warning("The learning rate is negative.")
    logger.info("heard again")
    assert [record.getMessage() for record in said] == ["The learning rate is negative.", "heard again"]
    assert logger.filters == []


@pytest.mark.parametrize("owner", ["lightning.pytorch", "lightning.pytorch.utilities.rank_zero"])
def test_who_asks_for_details_gets_them(said, monkeypatch, owner):
    monkeypatch.setattr(logging.getLogger(owner), "level", logging.DEBUG)
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.manager._clear_cache()
    with quiet_libraries():
        logger.info("TPU available")
        logger.debug("detail")
    logger.manager._clear_cache()
    assert [record.getMessage() for record in said] == ["TPU available", "detail"]
    assert logging.getLogger(owner).level == logging.DEBUG


def test_only_warnings_without_a_use_are_kept_out():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_libraries():
            for note in NOTES:
                warnings.warn(note, UserWarning, stacklevel=1)
            warnings.warn("The cells have no library size.", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["The cells have no library size."]
    assert warnings.filters == before


def test_two_calls_at_a_time_undo_only_what_is_theirs(said):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    first, second = quiet_libraries(), quiet_libraries()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    logger.info("still kept out")
    second.__exit__(None, None, None)
    logger.info("heard")
    assert [record.getMessage() for record in said] == ["heard"]


def test_a_handler_of_the_user_stays_the_only_one(monkeypatch):
    logger, mine = logging.getLogger("raptorgraph"), logging.NullHandler()
    monkeypatch.setattr(logger, "handlers", [mine])
    show_messages()
    show_messages()
    assert logger.handlers == [mine]
    monkeypatch.setattr(logger, "handlers", [])
    show_messages()
    show_messages()
    assert len(logger.handlers) == 1


def test_in_a_notebook_tqdm_is_imported_without_its_warning(monkeypatch):
    monkeypatch.setitem(_logging.sys.modules, "ipykernel", object())
    monkeypatch.delitem(_logging.sys.modules, "tqdm.auto", raising=False)
    monkeypatch.delitem(_logging.sys.modules, "tqdm.autonotebook", raising=False)
    show_messages()
    assert "tqdm.auto" in _logging.sys.modules
