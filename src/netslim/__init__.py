"""Network Slimming (Liu et al., ICCV 2017, arXiv 1708.06519)."""
