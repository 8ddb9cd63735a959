"""From raw production images to a data set in AutoVI's layout (Carvalho et al. 2024, section 3.1)."""
