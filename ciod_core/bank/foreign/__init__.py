"""Teachers that are not weights of ciod: the results of any detector, or a model that somebody exported."""
