"""When joint retraining has got as far as prompt tuning, and what it took."""

from joint_retraining import epoch_that_reaches, seconds_to
from mptrec_tf.training import Trained


def test_the_first_epoch_that_reaches_the_target_is_kept():
    assert epoch_that_reaches([0.80, 0.86, 0.85, 0.87], 0.86) == 1


def test_the_best_epoch_is_kept_where_none_reaches_it():
    assert epoch_that_reaches([0.80, 0.86, 0.85], 0.9) == 1


def test_epochs_after_the_kept_one_do_not_count():
    trained = Trained(None, [{"seconds": 3.0}, {"seconds": 2.0}, {"seconds": 1.0}], 1)
    assert seconds_to(trained, 0, wall=10.0) == 7.0
    assert seconds_to(trained, 2, wall=10.0) == 10.0
