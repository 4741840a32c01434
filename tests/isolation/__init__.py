"""Nothing of one organization reaches another: every page and operation, with and without the filters of the code."""
