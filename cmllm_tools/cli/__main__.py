"""`python -m cmllm_tools.cli`, where the command `cmllm` is not on the path."""

import sys

from . import main

sys.exit(main())
