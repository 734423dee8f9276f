"""A row whose task gives several arguments at a time is timed on as many samples as it asks for, and scored."""

from tests.sweeping import configuration, sweep


def test_a_posterior_is_timed_on_the_data_sets_that_it_is_scored_on(tmp_path):
    config = configuration(tmp_path, ["gp_exact"], task={"name": "prior_tasks"})
    record = sweep(config).records[0]
    assert record["status"] in ("ok", "contaminated"), record["error"]
    assert record["quality"]["metric"] == "nll" and record["quality"]["n"] == 200
