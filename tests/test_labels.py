"""The classes and flags are those of the data set, in the order that columns, logits and the workbook have."""

import csv
from pathlib import Path

from monai_chd.labels import CLASSES, FLAGS

TABLE = Path(__file__).parent / "data" / "imagechd_flags.csv"


def test_the_flags_are_the_sixteen_columns_of_the_workbook_in_its_order():
    with TABLE.open(newline="") as file:
        assert tuple(next(csv.reader(file)))[1:] == FLAGS


def test_the_order_of_classes_is_the_one_that_labels_and_columns_stand_for():
    assert CLASSES == ("Cyanotic", "Non-Cyanotic", "Normal")
