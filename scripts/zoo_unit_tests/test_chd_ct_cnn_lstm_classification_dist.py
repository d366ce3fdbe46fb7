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

"""For the model zoo's ci/unit_tests; run from the folder that has models/: a training of two processes (gloo without GPUs)."""

import os
import subprocess
import sys
import tempfile
import unittest

import torch
from monai.bundle import ConfigWorkflow

BUNDLE = os.path.abspath("models/chd_ct_cnn_lstm_classification")
sys.path[:0] = [BUNDLE, os.path.dirname(os.path.abspath(__file__))]

from test_chd_ct_cnn_lstm_classification import SMALL, make_data  # noqa: E402


class TestChdClassificationDist(unittest.TestCase):
    def test_train(self):
        with tempfile.TemporaryDirectory() as folder:
            _, datalist = make_data(folder)
            config = os.path.join(folder, "override.json")
            override = {
                "bundle_root": BUNDLE,
                "datalist": datalist,
                "output_dir": os.path.join(folder, "output"),
                **SMALL,
            }
            names = [os.path.join(BUNDLE, "configs", f"{name}.json") for name in ("train", "multi_gpu_train")]
            workflow = ConfigWorkflow(
                workflow_type="train", config_file=names, logging_file=False, meta_file=None, **override
            )
            workflow.parser.export_config_file(workflow.parser.config, config, indent=2)
            processes = max(2, torch.cuda.device_count())
            command = ["torchrun", "--standalone", "--nnodes=1", f"--nproc_per_node={processes}"]
            command += ["-m", "monai.bundle", "run", "--config_file", config]
            environment = {**os.environ, "PYTHONPATH": BUNDLE, "OMP_NUM_THREADS": "1"}
            subprocess.run([sys.executable, "-m", "torch.distributed.run", *command[1:]], check=True, env=environment)
            weights = torch.load(os.path.join(folder, "output", "models", "model.pt"), weights_only=True)
            self.assertTrue(weights and not any(name.startswith("module.") for name in weights))


if __name__ == "__main__":
    unittest.main()
