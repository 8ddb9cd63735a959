"""The synthetic line: rendered inspection tasks in AutoVI’s layout."""
