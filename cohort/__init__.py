"""WHO: cases, structures, pools, budgets and selection. NumPy, pandas and nibabel; no torch."""
