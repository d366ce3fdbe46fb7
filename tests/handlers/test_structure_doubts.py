"""Cases whose structures are no heart's, or lack what all others have, are abstained from with a reason; others are not."""

import csv

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from monai_chd.handlers import Predictions, StructureDoubts
from monai_chd.labels import STRUCTURES
from monai_chd.networks import CNNLSTM
from monai_chd.networks.structure_encoder import PER_CASE, PER_FRAME

NAMES = (*PER_FRAME, *PER_CASE)
FRAMES = 6


def heart(**changed: float) -> torch.Tensor:
    """Descriptors of a case, (T, F): usual ones but for those named."""
    usual = dict.fromkeys(NAMES, 0.0)
    for name in STRUCTURES:
        usual |= {f"area {name}": 0.5, f"intensity {name}": 0.5, f"volume {name}": -2.0}
    usual |= {"contact LV-Ao": -1.2, "contact RV-Ao": -4.0}
    usual |= {name.replace("_", " ").replace(" to ", "-"): value for name, value in changed.items()}
    assert usual.keys() == set(NAMES)
    return torch.tensor([list(usual.values())]).expand(FRAMES, -1).clone()


@pytest.fixture(scope="module")
def network():
    """A classifier that was standardized on varied hearts, some without a pulmonary artery."""
    torch.manual_seed(0)
    made = CNNLSTM("structures", standardize=True, hidden_size=4, pooling="mean").eval()
    varied = torch.cat([heart() + 0.3 * torch.randn(1, len(NAMES)) for _ in range(40)])
    varied[: 8 * FRAMES, NAMES.index("volume PA")] = -6.9
    made.standardization.fit(varied)
    return made


def doubts_of(network, *cases):
    doubts = StructureDoubts(network, (-200, 900))
    engine = Engine(lambda _, batch: network(batch, torch.full((len(batch),), FRAMES)))
    doubts.attach(engine)
    engine.run([torch.stack(cases)])
    return doubts.last


GONE = {f"volume_{name}": -6.9 for name in STRUCTURES}
DARK = {f"intensity_{name}": 0.22 for name in STRUCTURES}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"volume_PA": -6.9}, ""),  # as some of the training
        ({"volume_Ao": -6.9}, "not found, which all hearts of the training have: Ao"),
        (GONE, "no heart is found"),
        ({"contact_LV_to_Ao": -6.9, "contact_RV_to_Ao": -6.9}, "the aorta that is found touches no ventricle"),
        ({"contact_LV_to_Ao": -6.9, "contact_RV_to_Ao": -1.0}, ""),  # an aorta from the right ventricle
        (DARK, "no contrast agent: blood of at most 42 HU"),
        ({**DARK, "intensity_PA": 0.5}, ""),
    ],
)
def test_reasons(network, changed, reason):
    first, second = doubts_of(network, heart(**changed), heart())
    assert first.reason == reason and second.reason == ""
    assert first.distance >= second.distance


@pytest.mark.parametrize("made", [CNNLSTM("small_cnn", standardize=True), CNNLSTM("structures"), torch.nn.Identity()])
def test_networks_without_structures_have_no_doubts(made):
    doubts, engine = StructureDoubts(made, (-200, 900)), Engine(lambda _, batch: None)
    doubts.attach(engine)
    assert doubts.part is None
    engine.run([0])
    assert not any(module._forward_hooks for module in made.modules()) and doubts.last == []


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_doubted_case_is_abstained_from_in_the_table(network, tmp_path):
    doubts = StructureDoubts(network, (-200, 900))

    def process(engine, batch):
        logits = network(torch.stack([case["features"] for case in batch]), torch.full((len(batch),), FRAMES))
        return [{"pred": row.softmax(0).detach()} for row in logits]

    engine = Engine(process)
    doubts.attach(engine)
    Predictions(tmp_path, tmp_path, doubts=doubts).attach(engine)
    cases = [
        {"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": str(tmp_path / name)}), "features": features}
        for name, features in (("b.nii.gz", heart(**GONE)), ("a.nii.gz", heart()), ("c.nii.gz", heart()))
    ]
    cases[2]["image"].meta["intensity"] = "arbitrary"
    engine.run([cases])
    rows = {row["image"]: row for row in table(tmp_path / "predictions.csv")}
    assert (rows["b.nii.gz"]["abstain"], rows["b.nii.gz"]["reason"]) == ("true", "no heart is found")
    assert rows["a.nii.gz"]["abstain"] == "false" and rows["b.nii.gz"]["prediction"]
    assert rows["c.nii.gz"]["reason"] == "no HU: structures were learned on CT"
    distances = table(tmp_path / "structures.csv")
    assert [row["image"] for row in distances] == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    assert float(distances[1]["distance"]) > float(distances[0]["distance"])
