"""Which documents are worth a model's time: rules on single texts (`rules`), near-duplicates among all of them."""
