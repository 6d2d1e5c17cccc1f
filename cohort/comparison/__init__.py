"""Statistics of a comparison of arms over paired seeds: curves over cost, intervals, tests."""
