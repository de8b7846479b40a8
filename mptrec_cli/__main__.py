"""`python -m mptrec_cli`, the same as `mptrec`."""

import sys

from mptrec_cli import main

sys.exit(main())
