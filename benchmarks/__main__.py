"""`python -m benchmarks`, from the repository's root: the command, or with --child one process of it."""

import json
import os
import sys

from benchmarks.child import serve
from benchmarks.command import main

if sys.argv[1:2] == ["--child"]:
    serve(sys.argv[2], json.loads(sys.argv[3]))
    sys.stdout.flush()
    os._exit(0)  # without the teardown of libraries, which may crash and has nothing to do
sys.exit(main())
