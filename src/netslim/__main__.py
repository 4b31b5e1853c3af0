"""The command ``netslim``, as ``python -m netslim``."""

from netslim.launch.app import main

if __name__ == "__main__":
    main()
