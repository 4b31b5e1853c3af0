"""The benchmark is a script; its tests import its modules by name, as it does itself."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
