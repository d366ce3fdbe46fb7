# Copyright (c) The monai_chd authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""For the model zoo's ci/unit_tests; run from the folder that has models/, on synthetic hearts made here."""

import csv
import os
import sys
import tempfile
import unittest

from monai.bundle import ConfigWorkflow

BUNDLE = os.path.abspath("models/chd_ct_cnn_lstm_classification")
sys.path.insert(0, BUNDLE)

SMALL = {
    "encoder": "small_cnn",
    "standardize": False,
    "frame_size": 24,
    "sequence_length": 10,
    "cache": "none",
    "max_epochs": 1,
}
"""A network and frames so small that a training takes seconds; the shipped ones are used for inference."""


def make_data(folder):
    """A cohort of synthetic hearts and its datalist."""
    from monai_chd.cli import main

    scans, work = os.path.join(folder, "scans"), os.path.join(folder, "work")
    assert main(["phantom", scans, "--patients", "12", "--size", "32", "--slices", "8", "10"]) == 0
    assert main(["prepare", scans, "--out", work, "--folds", "2", "--test-fraction", "0.25"]) == 0
    return scans, os.path.join(work, "datalist.json")


class TestChdClassification(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.scans, self.datalist = make_data(self.folder.name)
        self.output_dir = os.path.join(self.folder.name, "output")

    def tearDown(self):
        self.folder.cleanup()

    def work(self, names, kind, **override):
        """Check a workflow's properties, and run it."""
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=[os.path.join(BUNDLE, "configs", f"{name}.json") for name in names],
            logging_file=os.path.join(BUNDLE, "configs/logging.conf"),
            meta_file=os.path.join(BUNDLE, "configs/metadata.json"),
            bundle_root=BUNDLE,
            output_dir=self.output_dir,
            **override,
        )
        workflow.initialize()
        self.assertEqual(workflow.check_properties(), [])
        workflow.run()
        workflow.finalize()

    def test_train_and_evaluate(self):
        self.work(["train"], "train", datalist=self.datalist, **SMALL)
        self.work(["train", "evaluate"], "train", datalist=self.datalist)
        self.assertTrue(os.path.isfile(os.path.join(self.output_dir, "evaluation", "metrics.json")))

    def test_inference(self):
        self.work(["inference"], "infer", dataset_dir=self.scans)
        with open(os.path.join(self.output_dir, "inference", "predictions.csv"), newline="") as file:
            self.assertEqual(len(list(csv.DictReader(file))), 12)


if __name__ == "__main__":
    unittest.main()
