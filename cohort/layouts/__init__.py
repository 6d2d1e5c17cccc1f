"""How data sets lie on disk, one module a layout."""
