"""HOW GOOD: predicts the DSC that a mask would get against a careful annotation."""
