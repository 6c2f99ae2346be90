"""The way to a derivative follows what each costs."""

from dataclasses import replace

import pytest

from lightning_inf.sweep.ways import Ways

MEASURED = Ways(layers=True, captured=3.0, product=0.1, derivative=2.0, gradient=5.0, contiguous=2.0, channels_last=1.0)


@pytest.mark.parametrize(
    ("tangents", "norms", "backend", "way"),
    [
        (1, False, "auto", "jvp"),  # 2 against 3.1
        (2, False, "auto", "layers"),  # 4 against 3.2
        (1, True, "auto", "layers"),  # lengths need gradients
        (50, False, "jvp", "jvp"),
        (1, False, "layers", "layers"),
        (1, False, "vmap", "vmap"),
    ],
)
def test_the_cheapest_exact_way(tangents, norms, backend, way):
    assert MEASURED.pick(tangents, norms, backend) == way


def test_without_the_layers_gradients_pay_from_some_number_on():
    without = Ways(layers=False, reason="because", derivative=2.0, gradient=9.0)
    assert [without.pick(t, False) for t in (1, 4, 5)] == ["jvp", "jvp", "vmap"]
    assert Ways(layers=False).pick(4, False) == "jvp"
    assert Ways(layers=False).pick(5, False) == "vmap"
    assert Ways().pick(1, False) == "layers"


def test_materialised_gradients_win_where_they_were_measured_and_cost_less():
    dear = replace(MEASURED, derivative=9.0, materialised=4.0)
    assert [dear.pick(tangents, False) for tangents in (1, 20)] == ["layers", "vmap"]
    assert dear.pick(20, True) == "layers"  # which gives lengths as well
    assert dear.costs(20)["vmap"] == 4.0


def test_what_is_kept_in_the_manifest_makes_it_again():
    assert Ways(**MEASURED.described()) == MEASURED


def test_the_explanation_names_way_reason_and_costs():
    said = MEASURED.explained([(1, False), (1, False), (3, True), (0, False)], "auto")
    assert said["layout"] == "contiguous"
    assert "0.50 of the usual time" in said["layout_reason"]
    assert [(one["tangents"], one["norms"], one["way"]) for one in said["derivatives"]] == [
        (1, False, "jvp"),
        (3, True, "layers"),
    ]
    assert said["derivatives"][0]["forward_passes"] == {"layers": 1.55, "jvp": 1.0}
    refused = Ways(layers=False, reason="the gain is elsewhere", derivative=1.0, gradient=2.0)
    assert "the gain is elsewhere" in refused.explained([(1, True)], "auto")["derivatives"][0]["reason"]
    assert "'central' was asked for" in MEASURED.explained([(2, False)], "central")["derivatives"][0]["reason"]
