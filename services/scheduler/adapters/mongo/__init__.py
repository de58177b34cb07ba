"""The stores in MongoDB: Beanie documents, their indexes, and the compare-and-set writes of the dispatch path."""
